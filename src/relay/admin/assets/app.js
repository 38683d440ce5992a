"use strict";
const live = new EventSource("/api/live?view=fleet");
live.addEventListener("summary", (event) => {
  document.getElementById("summary").textContent = JSON.stringify(JSON.parse(event.data), null, 2);
});
