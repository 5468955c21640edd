const root = document.documentElement;
root.classList.add("js");
const names = ["photo", "label", "mask"];
for (const figure of document.querySelectorAll(".photo")) {
  const [stack, range] = [figure.querySelector(".stack"), figure.querySelector("input")];
  const buttons = [...figure.querySelectorAll("button")];
  const show = () => {
    const at = Number(range.value);
    stack.style.setProperty("--label", Math.min(at, 100) + "%");
    stack.style.setProperty("--mask", Math.max(at - 100, 0) + "%");
    const [from, part] = [Math.floor(at / 100), at % 100];
    range.setAttribute("aria-valuetext", part ? `${100 - part} % ${names[from]}, ${part} % ${names[from + 1]}` : names[from]);
    buttons.forEach((button, stop) => button.setAttribute("aria-pressed", at === 100 * stop));
  };
  range.addEventListener("input", show);
  buttons.forEach((button, stop) => button.addEventListener("click", () => { range.value = 100 * stop; show(); }));
  show();
}
const mark = document.querySelector("#mark");
if (mark) {
  const set = () => root.classList.toggle("marked", mark.checked);
  mark.addEventListener("change", set);
  set();
}
