// Draws the panels of an offline report as they are scrolled to. Everything it needs is in the same file.
(async function () {
  const failed = document.getElementById("failed");
  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  if (typeof DecompressionStream === "undefined") {
    failed.textContent = "Charts and tables need a browser of 2023 or newer.";
    failed.hidden = false;
    return;
  }
  const data = JSON.parse(await unpacked("data"));
  const theme = () => document.documentElement.dataset.theme;

  const STEP = 200;
  const SCALE = { ms: 1e-3, "µs": 1e-6, mJ: 1e-3, mW: 1e-3, KiB: 1024, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40,
    kHz: 1e3, MHz: 1e6, GHz: 1e9 };
  function number(text) {
    const found = /^(-?[\d.]+(?:e[-+]?\d+)?)(?: (\S+))?/.exec(text);
    return found ? parseFloat(found[1]) * (SCALE[found[2]] || 1) : NaN;
  }
  function table(place, grid) {
    const n = grid.cells.length ? grid.cells[0].length : 0;
    let order = Array.from({ length: n }, (_, k) => k);
    let shown = STEP, by = -1, down = false, wanted = "";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "find in " + n + " rows";
    input.setAttribute("aria-label", input.placeholder);
    const element = document.createElement("table");
    const more = document.createElement("button");
    more.textContent = "more rows";
    function draw() {
      const rows = order.filter((k) => !wanted || grid.cells.some((column) => column[k].toLowerCase().includes(wanted)));
      const head = element.createTHead();
      head.replaceChildren();
      const line = head.insertRow();
      grid.heads.forEach(([text, right], at) => {
        const cell = document.createElement("th");
        cell.scope = "col";
        if (right) cell.className = "right";
        if (by === at) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const button = document.createElement("button");
        button.textContent = text + (by === at ? (down ? " ↓" : " ↑") : "");
        button.addEventListener("click", () => sort(at));
        cell.append(button);
        line.append(cell);
      });
      const body = element.tBodies[0] || element.createTBody();
      body.replaceChildren();
      rows.slice(0, shown).forEach((k) => {
        const row = body.insertRow();
        grid.cells.forEach((column, at) => {
          const cell = row.insertCell();
          cell.textContent = column[k];
          if (grid.heads[at][1]) cell.className = "right";
        });
      });
      more.hidden = rows.length <= shown;
    }
    function sort(at) {
      down = by === at ? !down : false;
      by = at;
      const column = grid.cells[at];
      const keys = grid.heads[at][1] ? column.map(number) : null;
      const compare = keys
        ? (a, b) => (isNaN(keys[a]) ? 1 : 0) - (isNaN(keys[b]) ? 1 : 0) || (down ? keys[b] - keys[a] : keys[a] - keys[b])
        : (a, b) => (down ? -1 : 1) * column[a].localeCompare(column[b]);
      order.sort(compare);
      draw();
    }
    input.addEventListener("input", () => { wanted = input.value.toLowerCase(); shown = STEP; draw(); });
    more.addEventListener("click", () => { shown += STEP * 5; draw(); });
    if (n > 12) place.append(input);
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.append(element);
    place.append(scroll, more);
    draw();
  }

  let plotly = null;
  function loaded() {
    plotly = plotly || unpacked("plotly").then((text) => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.append(script);
      return window.Plotly;
    });
    return plotly;
  }
  const drawn = new Set();
  async function graph(place) {
    const Plotly = await loaded();
    const figure = data.panels[place.dataset.panel].figure;
    const layout = Object.assign({}, figure.layout, { template: data.templates[theme()], autosize: true });
    drawn.add(place);
    await Plotly.react(place, figure.data, layout, { displaylogo: false, responsive: true });
  }
  const look = new IntersectionObserver((seen) => {
    seen.filter((one) => one.isIntersecting).forEach((one) => {
      look.unobserve(one.target);
      if (one.target.className === "graph") graph(one.target);
      else table(one.target, data.panels[one.target.dataset.panel].grid);
    });
  }, { rootMargin: "400px" });
  document.querySelectorAll("[data-panel]").forEach((place) => look.observe(place));
  document.getElementById("toggle").addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    drawn.forEach(graph);
  });
  document.documentElement.dataset.ready = "yes";
})();
