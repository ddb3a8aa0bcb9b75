// Draw formulae: a JSON list of [TeX, display] comes in on standard input, a JSON list of SVG goes out.
// The folder of the npm package mathjax is the only argument.

const folder = process.argv[2];

require(`${folder}/es5/node-main.js`).init({
  loader: { load: ["input/tex-full", "output/svg"] },
  svg: { fontCache: "local" },
}).then((MathJax) => {
  const adaptor = MathJax.startup.adaptor;
  const wanted = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const drawn = wanted.map(([tex, display]) => {
    const made = MathJax.tex2svg(tex, { display });
    const wrong = adaptor.getAttribute(adaptor.firstChild(made), "data-mjx-error")
      ?? /data-mjx-error="([^"]*)"/.exec(adaptor.outerHTML(made))?.[1];
    if (wrong) throw new Error(`${wrong} in ${tex}`);
    return adaptor.innerHTML(made);
  });
  process.stdout.write(JSON.stringify(drawn));
}).catch((error) => { console.error(error.message); process.exit(1); });
