#!/usr/bin/env bash
# Make spa3r/web again: what the page needs of other people's work, from npm, in pinned versions. Needs node and npm.
#   tools/fetch_web.sh
set -eu
ORT=1.30.0 THREE=0.187.0 ESBUILD=0.28.2
out=$(cd "$(dirname "$0")/.." && pwd)/spa3r/web; tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
npm init -y >/dev/null
npm install --silent --ignore-scripts=false onnxruntime-web@$ORT three@$THREE esbuild@$ESBUILD
mkdir -p "$out"
# onnxruntime-web as it is; the binary compressed, as the page unpacks it itself
d=node_modules/onnxruntime-web/dist
cp $d/ort.wasm.min.js $d/ort-wasm-simd-threaded.mjs "$out"
gzip -9 -n -c $d/ort-wasm-simd-threaded.wasm > "$out/ort-wasm-simd-threaded.wasm.gz"
# three.js: what the page uses of it, in one script
cat > three.js <<'J'
export {BufferAttribute,BufferGeometry,ColorManagement,DoubleSide,Group,LinearSRGBColorSpace,Mesh,MeshBasicMaterial,PerspectiveCamera,Points,PointsMaterial,
  Scene,TextureLoader,Vector3,WebGLRenderer} from 'three'
export {OrbitControls} from 'three/addons/controls/OrbitControls.js'
export {LineSegments2} from 'three/addons/lines/LineSegments2.js'
export {LineSegmentsGeometry} from 'three/addons/lines/LineSegmentsGeometry.js'
export {LineMaterial} from 'three/addons/lines/LineMaterial.js'
J
npx esbuild three.js --bundle --minify --format=iife --global-name=THREE --legal-comments=inline --outfile="$out/three.min.js" --log-level=warning
cp node_modules/three/LICENSE "$out/three.LICENSE"
printf '{"onnxruntime-web": "%s", "three": "%s"}\n' $ORT $THREE > "$out/versions.json"
ls -l "$out"
