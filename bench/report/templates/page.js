"use strict";
// Tables sort by a click on a heading: numbers by value, the rest as text, empty cells always last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const difference = heading.className === "text" ? a.localeCompare(b, "en", {numeric: true}) : a - b;
      return up ? difference : -difference;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  }));
}

// A filter keeps the rows that hold every word typed into its box and the values chosen in its lists.
for (const form of document.querySelectorAll("form.filter")) {
  const table = document.getElementById(form.dataset.filters);
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map(row => row.textContent.toLowerCase());
  const columns = [...table.tHead.rows[0].cells].map(heading => heading.textContent);
  const box = form.querySelector("input"), lists = [...form.querySelectorAll("select")];
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/);
    const chosen = lists.filter(list => list.value).map(list => [columns.indexOf(list.dataset.column), list.value]);
    rows.forEach((row, i) => {
      row.hidden = !words.every(word => texts[i].includes(word)) ||
        !chosen.every(([column, value]) => row.cells[column].textContent.trim() === value);
    });
    form.querySelector("output").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
}

// A click on a row opens all that is known of it.
const element = (name, parent, text = "") => {
  const made = parent.appendChild(document.createElement(name));
  made.textContent = text;
  return made;
};

function seconds(value) {
  const [unit, scale] = [["s", 1], ["ms", 1e3], ["µs", 1e6]].find(([, scale]) => value * scale >= 0.9995) ?? ["ns", 1e9];
  return `${(value * scale).toPrecision(3)} ${unit}`;
}

function drawRounds(rounds, parent) {
  const low = Math.min(...rounds), high = Math.max(...rounds), width = 300, height = 60;
  const x = i => 4 + i * (width - 8) / Math.max(1, rounds.length - 1);
  const y = value => height - 4 - (value - low) * (height - 8) / (high - low || 1);
  element("h4", parent, `Rounds: from ${seconds(low)} to ${seconds(high)}`);
  const dots = rounds.map((value, i) => `<circle cx="${x(i).toFixed(1)}" cy="${y(value).toFixed(1)}" r="2.5"/>`);
  const line = rounds.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  parent.insertAdjacentHTML("beforeend",
    `<svg class="rounds" viewBox="0 0 ${width} ${height}"><polyline points="${line}"/>${dots.join("")}</svg>`);
}

for (const table of document.querySelectorAll("table.detailed")) {
  const known = JSON.parse(document.getElementById(table.id + "-details").textContent);
  const dialog = document.getElementById(table.id + "-dialog");
  table.tBodies[0].addEventListener("click", event => {
    const {fields, rounds, errors} = known[event.target.closest("tr").dataset.row];
    const content = dialog.querySelector("div");
    content.replaceChildren();
    const list = element("dl", content);
    for (const [name, text] of Object.entries(fields)) {
      element("dt", list, name);
      element("dd", list, text);
    }
    if (rounds.length) drawRounds(rounds, content);
    if (Object.keys(errors).length) {
      element("h4", content, "Error of each output, and its bound");
      const outputs = element("dl", content);
      for (const [name, [error, bound]] of Object.entries(errors)) {
        element("dt", outputs, name);
        element("dd", outputs, `${error} of ${bound}`);
      }
    }
    dialog.showModal();
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
}

// A button copies the text beside it.
for (const box of document.querySelectorAll(".copyable")) {
  const button = box.querySelector("button"), text = box.querySelector("pre");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
    }
  });
}
