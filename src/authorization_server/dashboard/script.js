// Enables the copy buttons. The pages work without it.
"use strict";

for (const button of document.querySelectorAll("button[data-copy]")) {
  const label = button.firstChild;
  const status = document.getElementById("status");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      label.data = "Copied";
    } catch {
      // Without clipboard access: reveal and select the text, so that the user can copy it.
      for (let hidden; (hidden = source.closest("details:not([open])")); ) hidden.open = true;
      getSelection().selectAllChildren(source);
      label.data = "Selected";
    }
    status.textContent = button.textContent;
    setTimeout(() => { label.data = "Copy"; status.textContent = ""; }, 2000);
  });
}
