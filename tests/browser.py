"Real Chromium, driven by the DevTools protocol: open a page, press keys, move the mouse, ask the page what it thinks"
import base64,http.server,json,shutil,subprocess,tempfile,threading,time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

CHROMIUM = next((p for p in map(shutil.which, ('chromium','chromium-browser','google-chrome')) if p), None)
QUIET = '--headless=new --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-features=BackForwardCache --mute-audio --hide-scrollbars'.split()

class Page:
    "One tab"
    def __init__(self, ws): self.ws,self.n,self.errors,self.fetched,self.failed,self.frames = ws,0,[],[],[],[]
    def send(self, method, session=None, **params):
        "Call a method of the protocol and wait for its answer; what the page complains of meanwhile is kept in `errors`"
        self.n += 1
        self.ws.send(json.dumps(dict(id=self.n, method=method, params=params)|(dict(sessionId=session) if session else {})))
        while True:
            m = json.loads(self.ws.recv())
            if m.get('id')==self.n:
                if 'error' in m: raise RuntimeError(f"{method}: {m['error']}")
                return m['result']
            self._note(m.get('method'), m.get('params', {}))

    def _note(self, what, p):
        if what=='Runtime.exceptionThrown': self.errors.append(p['exceptionDetails'].get('exception', {}).get('description') or p['exceptionDetails']['text'])
        if what=='Runtime.consoleAPICalled' and p['type']=='error': self.errors.append(' '.join(str(a.get('value', a.get('description'))) for a in p['args']))
        if what=='Target.attachedToTarget' and p['targetInfo']['type']=='iframe': self.frames.append(p['sessionId'])
        if what=='Network.requestWillBeSent': self.fetched.append(p['request']['url'])
        if what=='Network.responseReceived' and p['response']['status']>=400: self.failed.append(f"{p['response']['status']} {p['response']['url']}")
        if what=='Network.loadingFailed' and not p.get('canceled'): self.failed.append(p['errorText'])

    def eval(self, js, session=None):
        "Value of an expression, awaited if it is a promise; `session`: in a frame of a process of its own, one of `frames`"
        r = self.send('Runtime.evaluate', session, expression=js, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in r: raise RuntimeError(r['exceptionDetails'].get('exception', {}).get('description', r))
        return r['result'].get('value')

    def wait(self, js, seconds=60, heed=True):
        "Wait until an expression is true, or (`heed`) a script fails; the limit is there to end a broken test, not to judge speed"
        end = time.time()+seconds
        while not (v:=self.eval(js)):
            if heed and self.errors or time.time()>end: raise TimeoutError(f"{js} did not come true; errors: {self.errors}")
            time.sleep(.05)
        return v

    def open(self, url, size=(1280,900), mobile=False):
        "Go to a page; what its scripts say while it loads is for the caller to judge"
        self.send('Emulation.setDeviceMetricsOverride', width=size[0], height=size[1], deviceScaleFactor=1, mobile=mobile)
        self.send('Page.navigate', url=url)
        self.wait('document.readyState=="complete"', heed=False)

    def key(self, key, hold=0):
        "Press a key, for `hold` seconds"
        kw = dict(key=key, code='Key'+key.upper() if len(key)==1 and key.isalpha() else key, text=key if len(key)==1 else '')
        self.send('Input.dispatchKeyEvent', type='keyDown', **kw)
        time.sleep(hold)
        self.send('Input.dispatchKeyEvent', type='keyUp', **kw)

    def mouse(self, kind, x, y, **kw):
        "kind: mousePressed, mouseMoved, mouseReleased, mouseWheel"
        self.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, **(dict(button='left', buttons=1, clickCount=1)|kw))

    def click(self, x, y):
        self.mouse('mousePressed', x, y)
        self.mouse('mouseReleased', x, y)

    def drag(self, a, b, steps=5):
        self.mouse('mousePressed', *a)
        for i in range(1, steps+1): self.mouse('mouseMoved', *(p+(q-p)*i/steps for p,q in zip(a, b)))
        self.mouse('mouseReleased', *b)

    def shot(self, path, whole=False):
        "Write a screenshot"
        Path(path).write_bytes(base64.b64decode(self.send('Page.captureScreenshot', format='png', captureBeyondViewport=whole)['data']))

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        if self.path!='/favicon.ico': return super().do_GET()
        self.send_response(204)  # browsers ask for it on their own
        self.end_headers()

@contextmanager
def serve(folder):
    "Address of a web server for `folder`"
    srv = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}'
    finally: srv.shutdown()

@contextmanager
def browser(webgl=True, size=(1280,900)):
    "A `Page` in a fresh Chromium that ends with the block"
    from websocket import create_connection
    home = tempfile.mkdtemp()
    gl = ['--enable-unsafe-swiftshader'] if webgl else ['--disable-gpu','--disable-3d-apis']
    p = subprocess.Popen([CHROMIUM, *QUIET, *gl, f'--window-size={size[0]},{size[1]}', f'--user-data-dir={home}', '--remote-debugging-port=0', '--remote-allow-origins=*', 'about:blank'],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = Path(home)/'DevToolsActivePort'
        end = time.time()+60
        while not (port.exists() and len(port.read_text(encoding='utf8').split())==2):
            if p.poll() is not None or time.time()>end: raise RuntimeError('Chromium did not start')
            time.sleep(.05)
        import urllib.request
        n = port.read_text(encoding='utf8').split()[0]
        tabs = json.load(urllib.request.urlopen(f'http://127.0.0.1:{n}/json', timeout=20))
        ws = create_connection(next(t['webSocketDebuggerUrl'] for t in tabs if t['type']=='page'), timeout=120)
        page = Page(ws)
        for d in ('Page','Runtime','Network'): page.send(d+'.enable')
        yield page
        ws.close()
    finally:
        p.terminate()
        try: p.wait(10)
        except subprocess.TimeoutExpired: p.kill()
        shutil.rmtree(home, ignore_errors=True)
