// What the pages do in the browser itself: the address, the theme, a point that leads to its run, a chart as PNG.
window.dash_clientside = window.dash_clientside || {};

(function () {
  const RUN = /^\d{8}T\d{6}Z-[0-9a-f]{6}$/;
  const none = () => window.dash_clientside.no_update;

  function same(a, b) {
    const flat = (one) => (Array.isArray(one) ? one : Object.entries(one).map(String).sort());
    return JSON.stringify(flat(a)) === JSON.stringify(flat(b));
  }

  window.dash_clientside.meltbench = {
    // The theme of the page; every click on the button makes it the other one, and is remembered.
    theme: function (clicks) {
      const root = document.documentElement;
      if (clicks) {
        root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
        localStorage.setItem("meltbench-theme", root.dataset.theme);
      }
      root.dataset.agThemeMode = root.dataset.theme; // of the tables
      return root.dataset.theme;
    },

    // Who changes a filter or a choice gets another address; the page is drawn from it, its filters and choices too.
    address: function (filters, choices, filterIds, choiceIds, search) {
      const params = new URLSearchParams(search || "");
      const triggered = window.dash_clientside.callback_context.triggered.map((one) => one.prop_id);
      const touched = (id) => triggered.some((name) => name.endsWith(".value") && same(JSON.parse(name.slice(0, -6)), id));
      filterIds.forEach((id, at) => {
        if (!touched(id) || same(params.getAll(id.word), filters[at] || [])) return;
        params.delete(id.word);
        (filters[at] || []).forEach((value) => params.append(id.word, value));
      });
      choiceIds.forEach((id, at) => {
        const value = choices[at] || "";
        if (!touched(id) || value === id.was) return; // as the page was drawn
        if (value) params.set(id.name, value);
        else params.delete(id.name);
      });
      const next = params.toString() ? "?" + params.toString() : "";
      return next === new URLSearchParams(search || "").toString().replace(/^(?=.)/, "?") ? none() : next;
    },

    // A point that stands for a run opens it.
    open: function (clicks, search) {
      const triggered = window.dash_clientside.callback_context.triggered;
      const click = triggered.length ? triggered[0].value : null;
      const point = click && click.points && click.points[0];
      const held = point && (Array.isArray(point.customdata) ? point.customdata[0] : point.customdata);
      if (typeof held !== "string" || !RUN.test(held)) return none();
      const params = new URLSearchParams(search || "");
      const kept = new URLSearchParams([["run", held]]);
      document.querySelectorAll(".filter").forEach((each) => {
        params.getAll(each.id.slice("filter-".length)).forEach((value) => kept.append(each.id.slice("filter-".length), value));
      });
      return "/run?" + kept.toString();
    },

    png: function () {
      const triggered = window.dash_clientside.callback_context.triggered;
      if (!triggered.length || !triggered[0].value) return none();
      const key = JSON.parse(triggered[0].prop_id.slice(0, triggered[0].prop_id.lastIndexOf("."))).at;
      const heading = document.getElementById("h-" + key);
      const plot = heading && heading.parentElement.querySelector(".js-plotly-plot");
      if (!plot) return none();
      window.Plotly.downloadImage(plot, { format: "png", filename: key, scale: 2 });
      return key;
    },
  };

  // The name of a run in a table: a link, made of text alone.
  const grid = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
  grid.Run = function (props) {
    const name = String(props.value);
    if (!RUN.test(name)) return name;
    return React.createElement("a", { href: "/run?run=" + encodeURIComponent(name) }, name);
  };
})();
