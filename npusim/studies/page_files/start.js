// What needs a script shows itself once there is one.
const data = JSON.parse(byId("data").textContent);
for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
setUpVerdicts();
if (data.designs) setUpDesigns(data.designs);
if (data.rooflines.length) setUpRooflines(data.rooflines);
