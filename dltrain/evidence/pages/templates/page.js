"use strict";
(() => {
  const tip = document.getElementById("tip");
  let lit = [];

  // What a mark says: its <title>, taken out once so that the browser does not show it a second time.
  const words = (mark) => {
    const title = mark.querySelector(":scope > title");
    if (title) { mark.setAttribute("aria-label", title.textContent); mark.setAttribute("role", "img"); title.remove(); }
    return mark.getAttribute("aria-label") || "";
  };
  const off = () => { lit.forEach((each) => each.classList.remove("lit")); lit = []; tip.hidden = true; };
  const on = (mark, x, y) => {
    off();
    const of = mark.dataset.of;
    lit = of ? [...document.querySelectorAll(`[data-of="${CSS.escape(of)}"]`)] : [mark];
    lit.forEach((each) => each.classList.add("lit"));
    if (mark.tagName === "TR") return;
    tip.textContent = words(mark);
    tip.hidden = false;
    const wide = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(x + 14, wide - tip.offsetWidth - 4)) + scrollX}px`;
    tip.style.top = `${(y - tip.offsetHeight - 12 > 0 ? y - tip.offsetHeight - 12 : y + 18) + scrollY}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest(".mark, tr[data-of]");
    if (mark) on(mark, event.clientX, event.clientY); else off();
  });

  // A mark may open a part of the page: by a click, by Enter, or by the space bar.
  const opened = (mark) => {
    const part = mark && document.getElementById(mark.dataset.opens);
    if (!part) return false;
    part.open = true;
    part.querySelector("summary").focus();
    return true;
  };
  document.addEventListener("click", (event) => opened(event.target.closest("[data-opens]")));
  document.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && opened(event.target.closest("[data-opens]"))) event.preventDefault();
  });

  // A figure is one stop of the tab key; arrows, Home and End go from mark to mark.
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    const svg = event.target.closest("svg.figure");
    if (event.key === "Escape") { off(); if (svg) clear(svg); return; }
    if (!svg || !(event.key in steps || event.key === "Home" || event.key === "End")) return;
    const marks = [...svg.querySelectorAll(".mark")];
    if (!marks.length) return;
    const now = marks.indexOf(event.target);
    const next = event.key === "Home" ? 0 : event.key === "End" ? marks.length - 1
      : now < 0 ? 0 : (now + steps[event.key] + marks.length) % marks.length;
    event.preventDefault();
    words(marks[next]);
    marks[next].setAttribute("tabindex", "-1");
    marks[next].focus();  // first, for it may scroll
    const box = marks[next].getBoundingClientRect();
    on(marks[next], box.left + box.width / 2, box.top + box.height / 2);
  });
  document.addEventListener("focusout", off);

  // Tables: a button in a head sorts by its column; numbers by size, what is empty last.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (!button) return;
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    head.parentNode.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.v ?? row.cells[head.cellIndex].textContent.trim();
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b), "en", { numeric: true }) : a - b;
      return up ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
  });

  // Parallel coordinates: dragging along an axis keeps the lines that pass there; a click clears it.
  const clear = (svg) => { svg.querySelectorAll(".chosen").forEach((each) => each.remove()); choose(svg); };
  const choose = (svg) => {
    const chosen = [...svg.querySelectorAll(".chosen")].map((each) => each.dataset);
    svg.querySelectorAll(".thread").forEach((line) => {
      const at = line.getAttribute("d").match(/[ML][^ML]+/g).map((pair) => pair.slice(1).split(" ").map(Number));
      const inside = chosen.every((c) => { const p = at[c.axis][+c.upright]; return +c.low <= p && p <= +c.high; });
      line.classList.toggle("out", !inside);
    });
  };
  document.querySelectorAll(".brush").forEach((brush) => {
    const svg = brush.closest("svg"), upright = +brush.dataset.upright;
    const place = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return upright ? at.y : at.x;
    };
    let from = null, area = null;
    brush.addEventListener("pointerdown", (event) => {
      from = place(event);
      svg.querySelectorAll(".chosen").forEach((each) => { if (each.dataset.axis === brush.dataset.axis) each.remove(); });
      choose(svg);
      area = null;
      if (event.isTrusted) brush.setPointerCapture(event.pointerId);
    });
    brush.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const low = Math.min(from, place(event)), high = Math.max(from, place(event));
      if (high - low < 3) return;
      if (!area) { area = brush.cloneNode(); area.setAttribute("class", "chosen"); brush.before(area); }
      area.setAttribute(upright ? "y" : "x", low);
      area.setAttribute(upright ? "height" : "width", high - low);
      Object.assign(area.dataset, { low, high });
      choose(svg);
    });
    ["pointerup", "pointercancel"].forEach((name) => brush.addEventListener(name, () => { from = null; }));
  });
})();
