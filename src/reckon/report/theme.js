// Set before the first paint, so that the page does not flash in the other theme.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const stored = () => { try { return localStorage.getItem("reckon-theme"); } catch { return null; } };
  const store = (name) => { try { localStorage.setItem("reckon-theme", name); } catch { /* a private window forgets */ } };
  const known = stored();
  if (known === "light" || known === "dark") root.dataset.theme = known;
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
    button.setAttribute("aria-label", "Switch between light and dark");
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      store(root.dataset.theme);
      label();
    });
    label();
    button.hidden = false;
  });
})();
