// What HTML alone cannot do: filters closed on a phone, the nearest model's name in a plot, arrow keys from model to
// model, and ticked models kept from page to page. Without this script every page still works.
"use strict";

(() => {
  const KEY = "securitynet.ticked";
  const narrow = window.matchMedia("(max-width: 60rem)");

  const ticked = () => {
    try { return new Set(JSON.parse(sessionStorage.getItem(KEY) || "[]")); } catch { return new Set(); }
  };

  const keep = (chosen) => {
    try { sessionStorage.setItem(KEY, JSON.stringify([...chosen].slice(-6))); } catch { /* private mode */ }
  };

  function showTicked(root) {
    const chosen = ticked();
    for (const box of root.querySelectorAll('input[form="comparing"]')) box.checked = chosen.has(box.value);
    for (const button of root.querySelectorAll('button[form="comparing"]')) {
      button.textContent = chosen.size ? `Compare ${chosen.size} ticked` : "Compare the ticked ones";
    }
  }

  document.addEventListener("change", (event) => {
    if (event.target.matches("#search #q")) event.stopPropagation(); // what was typed has been searched for already
    if (!event.target.matches('input[form="comparing"]')) return;
    event.stopPropagation(); // no new search for a tick
    const chosen = ticked();
    if (event.target.checked) chosen.add(event.target.value); else chosen.delete(event.target.value);
    keep(chosen);
    showTicked(document);
  }, true);

  document.addEventListener("submit", (event) => {
    if (event.target.getAttribute("id") !== "comparing") return; // its fields named id hide the property
    const here = new Set([...document.querySelectorAll('input[form="comparing"]')].map((box) => box.value));
    for (const id of ticked()) {
      if (here.has(id)) continue;
      const field = document.createElement("input");
      field.type = "hidden";
      field.name = "id";
      field.value = id;
      event.target.append(field);
    }
    keep(new Set());
  });

  function plot(figure) {
    const svg = figure.querySelector("svg");
    const tip = figure.querySelector(".tip");
    const links = [...svg.querySelectorAll(".dots a")];
    const dots = links.map((link) => {
      const circle = link.firstElementChild;
      const title = circle.querySelector("title");
      const text = title.textContent;
      link.setAttribute("aria-label", text.replaceAll("\n", ", "));
      title.remove(); // ours is quicker than the browser's
      return { link, text, x: circle.cx.baseVal.value, y: circle.cy.baseVal.value };
    });
    let current = null;
    const show = (dot) => {
      if (current) current.link.classList.remove("near-it");
      current = dot;
      tip.hidden = !dot;
      if (!dot) return;
      dot.link.classList.add("near-it");
      tip.textContent = dot.text;
      const frame = figure.getBoundingClientRect();
      const matrix = svg.getScreenCTM();
      const x = dot.x * matrix.a + matrix.e - frame.left;
      const y = dot.y * matrix.d + matrix.f - frame.top;
      const left = Math.min(Math.max(x + 12, 0), Math.max(frame.width - tip.offsetWidth, 0));
      tip.style.left = `${left}px`;
      tip.style.top = `${Math.max(y - tip.offsetHeight - 10, 0)}px`;
    };
    const nearest = (event) => {
      const matrix = svg.getScreenCTM();
      const x = (event.clientX - matrix.e) / matrix.a;
      const y = (event.clientY - matrix.f) / matrix.d;
      let best = null, least = 24 * 24;
      for (const dot of dots) {
        const apart = (dot.x - x) ** 2 + (dot.y - y) ** 2;
        if (apart < least) { best = dot; least = apart; }
      }
      return best;
    };
    svg.addEventListener("pointermove", (event) => show(nearest(event)));
    svg.addEventListener("pointerleave", () => show(null));
    svg.addEventListener("focusin", (event) => show(dots.find((dot) => dot.link === event.target) || null));
    svg.addEventListener("focusout", () => show(null));
    const across = [...dots].sort((a, b) => a.x - b.x || a.y - b.y);
    for (const dot of dots) dot.link.tabIndex = -1;
    if (across.length) across[0].link.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      const place = across.findIndex((dot) => dot.link === document.activeElement);
      if (!step || place < 0) return;
      event.preventDefault();
      const next = across[Math.min(Math.max(place + step, 0), across.length - 1)];
      across[place].link.setAttribute("tabindex", "-1");
      next.link.setAttribute("tabindex", "0");
      next.link.focus();
    });
  }

  function set(root) {
    if (narrow.matches) for (const filters of root.querySelectorAll(".filters")) filters.open = opened;
    for (const figure of root.querySelectorAll("[data-plot]")) plot(figure);
    showTicked(root);
  }

  let opened = false;
  document.addEventListener("toggle", (event) => {
    if (event.target.matches && event.target.matches(".filters")) opened = event.target.open;
  }, true);
  document.addEventListener("htmx:afterSwap", () => set(document));
  // An empty field says nothing, and need not stand in the address.
  document.addEventListener("htmx:configRequest", (event) => {
    const data = event.detail.formData;
    if (!data) return;
    for (const name of [...new Set(data.keys())]) {
      const values = data.getAll(name).filter((value) => value !== "");
      data.delete(name);
      for (const value of values) data.append(name, value);
    }
  });
  set(document);
})();
