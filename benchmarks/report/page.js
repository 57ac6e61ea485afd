"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  // Without the last two, Plotly offers to upload a chart to its maker's server.
  const config = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "" };
  const boxes = [...document.querySelectorAll("input[data-method]")];
  const taskSelect = document.getElementById("task");
  const costSelect = document.getElementById("cost");

  const chosenTask = () => (taskSelect ? taskSelect.value : "");
  const chosenCost = () => (costSelect ? costSelect.value : "");
  const chosenMethods = () => {
    const on = boxes.filter((box) => box.checked).map((box) => box.dataset.method);
    return new Set(boxes.length ? on : data.methods);
  };

  // Points that no other one surpasses in both, by ascending cost.
  function front(points) {
    points.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
    const found = [];
    for (const point of points) {
      if (!found.length || point[1] > found[found.length - 1][1]) found.push(point);
    }
    return found;
  }

  function prepare(figure, methods, cost) {
    const isScatter = figure.data.some((trace) => trace.meta.costs);
    const points = [];
    for (const trace of figure.data) {
      if (trace.meta.method !== undefined) trace.visible = methods.has(trace.meta.method);
      if (trace.meta.costs && cost) trace.x = trace.meta.costs[cost];
      if (trace.meta.costs && trace.visible) {
        trace.x.forEach((x, at) => { if (x !== null && trace.y[at] !== null) points.push([x, trace.y[at]]); });
      }
    }
    if (!isScatter) return;
    const edge = front(points);
    for (const trace of figure.data) {
      if (!trace.meta.front) continue;
      trace.x = edge.map((point) => point[0]);
      trace.y = edge.map((point) => point[1]);
    }
    if (cost) {
      figure.layout.xaxis.type = data.axes[cost].type;
      figure.layout.xaxis.tickformat = data.axes[cost].tickformat;
      figure.layout.xaxis.title = { text: data.axes[cost].title };
      delete figure.layout.xaxis.range;
      figure.layout.xaxis.autorange = true;
    }
  }

  function render() {
    const methods = chosenMethods();
    const task = chosenTask();
    for (const element of document.querySelectorAll("[data-task]")) {
      element.hidden = task !== "" && element.dataset.task !== task;
    }
    for (const element of document.querySelectorAll("[data-scope]")) {
      element.hidden = element.dataset.scope !== (task || data.scope);
    }
    for (const element of document.querySelectorAll("[data-methods]")) {
      element.hidden = !JSON.parse(element.dataset.methods).some((method) => methods.has(method));
    }
    for (const chart of document.querySelectorAll(".chart")) {
      if (chart.hidden) continue;
      const figure = data.charts[Number(chart.dataset.chart)];
      prepare(figure, methods, chosenCost());
      Plotly.react(chart, figure.data, figure.layout, config);
    }
  }

  function download(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };

  for (const button of document.querySelectorAll("button[data-csv]")) {
    button.addEventListener("click", () => {
      const table = data.tables[Number(button.dataset.csv)];
      const lines = [table.columns, ...table.rows].map((row) => row.map(cell).join(","));
      download(table.file, "text/csv", lines.join("\r\n") + "\r\n");
    });
  }
  for (const button of document.querySelectorAll("button[data-bibtex]")) {
    button.addEventListener("click", () => {
      download("references.bib", "text/plain", document.getElementById("bibtex").textContent);
    });
  }
  for (const button of document.querySelectorAll("button[data-all]")) {
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = button.dataset.all === "1";
      render();
    });
  }
  for (const control of [...boxes, taskSelect, costSelect]) {
    if (control) control.addEventListener("change", render);
  }
  render();
})();
