#!/usr/bin/env node
// node classify.js http://localhost:8501 mine a.jpg b.png

import { readFile } from "node:fs/promises";
import { Client } from "./client.js";

const [url, model, ...paths] = process.argv.slice(2);
if (!paths.length) {
  console.error("usage: classify.js URL MODEL PICTURE...");
  process.exit(2);
}
try {
  const pictures = await Promise.all(paths.map((path) => readFile(path)));
  const found = await new Client(url, model).classify(pictures);
  paths.forEach((path, i) => {
    console.log(path);
    for (const { label, score } of found[i]) console.log(`  ${score.toFixed(4)}  ${label}`);
  });
} catch (error) {
  const why = error.cause ? ` (${error.cause.code ?? error.cause.message})` : ""; // fetch's own say
  console.error(`classify.js: ${error.message}${why}`);
  process.exit(1);
}
