// Enlarges figures, filters and sorts the table of claims. Without it figures are links to their files, and all claims are
// shown below their notebooks.
"use strict";

function enlarge(link) {
  const picture = link.querySelector("img");
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  const bar = dialog.appendChild(document.createElement("div"));
  bar.className = "bar";
  const title = bar.appendChild(document.createElement("span"));
  title.textContent = picture ? picture.alt : link.textContent;
  const view = dialog.appendChild(document.createElement("div"));
  view.className = "view";
  view.tabIndex = 0;
  const image = view.appendChild(document.createElement("img"));
  image.alt = title.textContent;
  let scale = 1;
  const draw = () => {
    const ratio = image.naturalWidth / image.naturalHeight || 1;
    image.style.width = `${Math.min(view.clientWidth, view.clientHeight * ratio) * scale - 2}px`;
  };
  const zoom = (factor) => {
    scale = factor ? Math.min(8, Math.max(1, scale * factor)) : 1;
    draw();
  };
  for (const [text, name, act] of [
    ["−", "smaller", () => zoom(1 / 1.4)],
    ["+", "larger", () => zoom(1.4)],
    ["fit", "fit the window", () => zoom(0)],
    ["close", "close", () => dialog.close()],
  ]) {
    const button = bar.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", name);
    button.addEventListener("click", act);
  }
  const file = bar.insertBefore(document.createElement("a"), bar.lastChild);
  file.href = link.href;
  file.textContent = "file";
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") zoom(1.4);
    if (event.key === "-") zoom(1 / 1.4);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    link.focus();
  });
  document.body.appendChild(dialog);
  dialog.showModal();
  image.addEventListener("load", draw);
  image.src = link.href;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.zoom");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !window.HTMLDialogElement) return;
  event.preventDefault();
  enlarge(link);
});

function show(verdict) {
  for (const row of document.querySelectorAll("tr.claim")) row.hidden = verdict !== null && row.dataset.verdict !== verdict;
  hideEmpty();
}

function hideEmpty() {
  for (const body of document.querySelectorAll("table.claims tbody")) body.hidden = !body.querySelector("tr.claim:not([hidden])");
}

for (const filters of document.querySelectorAll(".filters")) {
  filters.hidden = false;
  filters.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const pressed = button.getAttribute("aria-pressed") === "true";
    for (const other of filters.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(!pressed));
    show(pressed ? null : button.dataset.verdict);
  });
}

// The claims by verdict or by our estimate, upwards, then downwards, then as they were, below their notebooks.
function sortable(table) {
  const rows = [...table.querySelectorAll("tr.claim")], homes = rows.map((row) => row.parentNode);
  const groups = [...table.querySelectorAll("tr.group")], all = table.createTBody();
  const keys = {
    Ours: (row) => parseFloat(row.children[3].textContent.replace("−", "-")),
    Verdict: (row) => ["holds", "fails", "open", "none"].indexOf(row.dataset.verdict),
  };
  for (const head of table.tHead.rows[0].cells) {
    const key = keys[head.textContent];
    if (!key) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null, unsorted: "ascending" }[head.getAttribute("aria-sort") ?? "unsorted"];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      for (const group of groups) group.hidden = next !== null;
      if (next !== null) head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const last = (row) => Number(Number.isNaN(key(row))); // what was not run comes last either way
      if (next !== null) all.append(...[...rows].sort((a, b) => last(a) - last(b) || sign * (key(a) - key(b))));
      else rows.forEach((row, i) => homes[i].append(row));
      hideEmpty();
    });
  }
}

document.querySelectorAll("table.claims").forEach(sortable);
