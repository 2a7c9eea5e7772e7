// Shows a point's words beside the pointer: those of the nearest point of the chart under it.
(() => {
  const tip = document.getElementById("tip");
  let near = null;

  const forget = () => {
    if (near) near.classList.remove("near");
    near = null;
    tip.style.visibility = "hidden";
  };

  const nearest = (svg, x, y) => {
    let best = null, bestDistance = 40 * 40;
    for (const dot of svg.querySelectorAll("circle[data-tip]")) {
      const box = dot.getBoundingClientRect();
      const dx = box.x + box.width / 2 - x, dy = box.y + box.height / 2 - y;
      const distance = dx * dx + dy * dy;
      if (distance < bestDistance) [best, bestDistance] = [dot, distance];
    }
    return best;
  };

  document.addEventListener("pointermove", (event) => {
    const svg = event.target.closest && event.target.closest("svg");
    const dot = svg ? nearest(svg, event.clientX, event.clientY) : null;
    if (dot !== near) {
      forget();
      near = dot;
      if (dot) {
        dot.classList.add("near");
        tip.textContent = dot.dataset.tip;
        tip.style.visibility = "visible";
      }
    }
    if (near) {
      const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
      tip.style.left = (right ? event.clientX - 14 - tip.offsetWidth : event.clientX + 14) + "px";
      tip.style.top = event.clientY + 14 + "px";
    }
  });
  document.addEventListener("pointerleave", forget);
})();
