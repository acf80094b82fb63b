"Recorded geometry: pose encoding both ways, intrinsics, rays and points"
import pytest,torch
from golden_io import load
from spa3r.cameras import Cameras,decode_pose,encode_pose,inv_se3,patch_rays,project,rigid,scale_intrinsics,transform,unproject

TOL = 1e-4

@pytest.fixture(scope='module')
def rec(): return load('e_geometry')

def hw_of(card): return card['config']['H'],card['config']['W']
def close(a, b, name):
    assert a.shape==b.shape, f'{name}: {tuple(a.shape)} instead of {tuple(b.shape)}'
    assert (d := (a-b).abs().max())<TOL, f'{name}: largest difference {d:.2e}'

def test_e_geometry_pose_to_matrices(rec):
    ts,card = rec
    w2c,K = decode_pose(ts['pose_enc'], hw_of(card))
    close(w2c[...,:3,:], ts['extrinsics'], 'extrinsics')
    close(K, ts['intrinsics'], 'intrinsics')

def test_e_geometry_matrices_to_pose(rec):
    ts,card = rec
    w2c = rigid(ts['extrinsics'][...,:3], ts['extrinsics'][...,3])
    close(encode_pose(w2c, ts['intrinsics'], hw_of(card)), ts['pose_enc_back'], 'pose_enc_back')
    close(Cameras.from_pose(ts['pose_enc'], hw_of(card)).pose(), ts['pose_enc_back'], 'there and back')

def test_e_geometry_rays(rec):
    ts,card = rec
    h,w = hw_of(card)
    p = card['config']['patch']
    close(scale_intrinsics(ts['intrinsics'], (h,w), (h//p,w//p)), ts['intrinsics_patch'], 'intrinsics_patch')
    close(patch_rays(ts['intrinsics'], (h,w), p).movedim(-1, -3), ts['rays'], 'rays')
    close(Cameras.from_pose(ts['pose_enc'], (h,w)).rays((h//p,w//p)).movedim(-1, -3), ts['rays'], 'rays of Cameras')

def test_e_geometry_inverse(rec):
    ts,_ = rec
    close(inv_se3(ts['extrinsics4']), ts['c2w'], 'c2w')

def test_e_geometry_points_official_has_no_half_pixel(rec):
    ts,_ = rec
    depth,K,w2c,c2w = ts['depth'].squeeze(-3),ts['depth_intrinsics'],ts['extrinsics4'],ts['c2w']
    K_off = K.clone()
    K_off[...,:2,2] += .5  # centre i+.5 of this camera is pixel i of the official one
    close(unproject(depth, K_off, c2w), ts['points'], 'points')
    close(unproject(depth, K_off, c2w)[0], ts['vggt_points_b0'], 'vggt_points_b0')
    ours = unproject(depth, K, c2w)
    uv,z = project(ours, K, w2c)
    uv_off,_ = project(ts['points'], K, w2c)
    close(uv-uv_off, torch.full_like(uv, .5), 'half a pixel between them')
    close(z, depth, 'depth')
    shift = (transform(w2c, ours)-transform(w2c, ts['points'])).abs()  # depth/2f to the right and below, nothing along z
    close(shift[...,0], depth/2/K[...,0,0,None,None], 'shift')
    assert shift[...,:2].amax()>10*TOL  # and it is no rounding matter
