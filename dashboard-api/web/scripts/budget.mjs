// Fails the build when the first load grows over its budget. Reads Vite's manifest, walks the static imports of the
// page's entry, adds up what a browser fetches before it can show anything, compressed as a server sends it.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const BUDGET_KB = { js: 190, css: 10 };
const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const manifest = JSON.parse(readFileSync(`${dist}.vite/manifest.json`, 'utf8'));

const files = { js: new Set(), css: new Set() };
const visit = (key) => {
  const chunk = manifest[key];
  if (files.js.has(chunk.file)) return;
  files.js.add(chunk.file);
  for (const file of chunk.css ?? []) files.css.add(file);
  for (const imported of chunk.imports ?? []) visit(imported);
};
visit('index.html');

let failed = false;
for (const [kind, names] of Object.entries(files)) {
  const bytes = [...names].reduce((sum, name) => sum + gzipSync(readFileSync(dist + name)).length, 0);
  const over = bytes > BUDGET_KB[kind] * 1000;
  failed ||= over;
  console.log(
    `first load ${kind}: ${(bytes / 1000).toFixed(1)} kB gzip of ${BUDGET_KB[kind]} kB${over ? ' — OVER BUDGET' : ''}`,
  );
}
process.exit(failed ? 1 : 0);
