// Formulas, and Plotly figures when they come into sight; all from files beside this one
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, '')

  document.querySelectorAll('.arithmatex').forEach(el => {
    const tex = el.textContent.trim(), display = tex.startsWith('\\[')
    katex.render(tex.slice(2, -2), el, {displayMode: display, throwOnError: true})
  })

  let plotly
  const load = () => plotly ||= new Promise((ok, no) => {
    const s = Object.assign(document.createElement('script'), {src: here + 'plotly.min.js', onerror: no, onload: () => ok(window.Plotly)})
    document.head.append(s)
  })
  // browsers keep 16 WebGL contexts, so a figure that is out of sight gives its own back
  const seen = async es => {
    const lib = await load()
    for (const {target: el, isIntersecting} of es) {
      if (!isIntersecting) { lib.purge(el); continue }
      const fig = JSON.parse(el.dataset.figure)
      await lib.newPlot(el, fig.data, {...fig.layout, autosize: true}, {responsive: true, displaylogo: false})
    }
  }
  const eye = new IntersectionObserver(seen, {rootMargin: '200px'})
  document.querySelectorAll('.plotly-figure').forEach(el => eye.observe(el))
})()
