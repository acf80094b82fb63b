"A headless Chromium for the tests, driven over its DevTools protocol: open a page, run scripts in it, hear what it complains of"
import base64,http.server,json,os,shutil,subprocess,tempfile,threading,time,urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

chromium = next(filter(None, map(shutil.which, [os.environ.get('CHROMIUM',''), *'chromium chromium-browser google-chrome chrome'.split()])), None)
no_chromium = 'no Chromium here (put one on the PATH, or its path into CHROMIUM)'  # the reason to skip for
FLAGS = '''--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update
    --disable-sync --disable-dev-shm-usage --remote-allow-origins=* --remote-debugging-port=0'''.split()

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        if self.path=='/favicon.ico': self.send_response(204); self.end_headers()  # browsers ask for it on their own
        else: super().do_GET()

@contextmanager
def serve(folder):
    "Address of a web server for `folder`"
    srv = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{srv.server_port}'
    finally: srv.shutdown()

class Browser:
    """One page of a browser of its own; use as a context manager. After `open`, `errors` has what went wrong
    (exceptions, console errors, failed requests) and `requests` each address that was asked for, but for data:"""
    def __init__(self, size=(1280,800), gl=False, timeout=60):
        self.size,self.gl,self.timeout,self.n,self.errors,self.requests = size,gl,timeout,0,[],[]

    def __enter__(self):
        import websocket  # pip install websocket-client
        self.home = tempfile.mkdtemp()
        cmd = [chromium, *FLAGS, '--enable-unsafe-swiftshader' if self.gl else '--disable-gpu', f'--user-data-dir={self.home}', 'about:blank']
        self.proc = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = self._until(lambda: (p := Path(self.home)/'DevToolsActivePort').exists() and p.read_text().split()[0], 'Chromium to start')
            tabs = lambda: [o for o in json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/json')) if o['type']=='page']
            self.ws = websocket.create_connection(self._until(tabs, 'a page')[0]['webSocketDebuggerUrl'], timeout=self.timeout, suppress_origin=True)
            for o in ('Page','Runtime','Network','Log'): self.cmd(o+'.enable')
            self.resize(*self.size)
        except BaseException: self.__exit__(); raise
        return self

    def __exit__(self, *_):
        self.proc.kill(); self.proc.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def _until(self, f, what):
        end = time.monotonic()+self.timeout
        while not (r := f()):
            if time.monotonic()>end: raise TimeoutError(f'waited {self.timeout} s for {what}')
            time.sleep(.05)
        return r

    def _hear(self):
        "Next message; what it complains of is kept"
        m = json.loads(self.ws.recv())
        p,what = m.get('params', {}),m.get('method')
        if what=='Runtime.exceptionThrown':
            d = p['exceptionDetails']
            self.errors.append(d.get('exception', {}).get('description') or d['text'])
        elif what=='Runtime.consoleAPICalled' and p['type'] in ('error','assert'):
            self.errors.append('console: '+' '.join(str(a.get('value', a.get('description'))) for a in p['args']))
        elif what=='Log.entryAdded' and p['entry']['level']=='error': self.errors.append(f"{p['entry']['text']} {p['entry'].get('url','')}")
        elif what=='Network.requestWillBeSent' and not p['request']['url'].startswith('data:'): self.requests.append(p['request']['url'])
        elif what=='Network.loadingFailed' and not p.get('canceled'): self.errors.append(f"{p['type']} failed: {p['errorText']}")
        elif what=='Page.loadEventFired': self.loaded = True
        return m

    def cmd(self, method, **params):
        "Result of a DevTools command"
        self.n += 1
        n = self.n
        self.ws.send(json.dumps(dict(id=n, method=method, params=params)))
        while (m := self._hear()).get('id')!=n: pass
        if 'error' in m: raise RuntimeError(f"{method}: {m['error']['message']}")
        return m['result']

    def open(self, url):
        "Load `url` and wait until it's there"
        self.errors,self.requests,self.loaded = [],[],False
        r = self.cmd('Page.navigate', url=url)
        if r.get('errorText'): raise RuntimeError(f"{url}: {r['errorText']}")
        while not self.loaded and 'loaderId' in r: self._hear()  # without a loader it's only another anchor of the same page
        return self

    def js(self, code):
        "Value of a JavaScript expression, of its promise if it's one"
        r = self.cmd('Runtime.evaluate', expression=code, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in r: raise RuntimeError(f"{code[:200]}: {r['exceptionDetails'].get('exception', {}).get('description')}")
        return r['result'].get('value')

    def wait(self, code):
        "First value of the expression `code` that's true"
        return self._until(lambda: self.js(code), code)

    def resize(self, w, h, phone=False): self.cmd('Emulation.setDeviceMetricsOverride', width=w, height=h, deviceScaleFactor=1, mobile=phone)
    def dark(self, on=True):
        self.cmd('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark' if on else 'light')])
    def screenshot(self, path):
        "Picture of what is seen"
        Path(path).write_bytes(base64.b64decode(self.cmd('Page.captureScreenshot', format='png')['data']))
