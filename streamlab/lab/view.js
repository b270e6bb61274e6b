// Draws a scene of streamlab.lab.drawing: [tag, attributes, text, children]. What is there already is changed in
// place, so that a turning mark goes on turning.
const SVG = "http://www.w3.org/2000/svg";

function make([tag, attributes, text, children]) {
  return patch(document.createElementNS(SVG, tag), [tag, attributes, text, children]);
}

function patch(element, [, attributes, text, children]) {
  for (const name of element.getAttributeNames()) {
    if (!(name in attributes)) element.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (name !== "xmlns" && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
  if (!children.length) {
    if (element.textContent !== text) element.textContent = text;
    return element;
  }
  children.forEach((child, index) => {
    const old = element.children[index];
    if (old && old.tagName === child[0]) patch(old, child);
    else if (old) old.replaceWith(make(child));
    else element.append(make(child));
  });
  while (element.children.length > children.length) element.lastElementChild.remove();
  return element;
}

function render({ model, el }) {
  el.classList.add("sl-live");
  const picture = make(model.get("scene"));
  el.append(picture);
  const draw = () => patch(picture, model.get("scene"));
  model.on("change:scene", draw);
  return () => model.off("change:scene", draw);
}

export default { render };
