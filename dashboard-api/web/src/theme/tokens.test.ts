import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const css = readFileSync('src/theme/tokens.css', 'utf8');

function tokens(theme: string): Map<string, string> {
  const block = new RegExp(`data-theme="${theme}"\\] \\{([^}]*)\\}`).exec(css)?.[1] ?? '';
  return new Map(
    [...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map((match) => [match[1] ?? '', match[2] ?? '']),
  );
}

function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast ratio of WCAG 2.2, section 1.4.3. */
function contrast(a: string, b: string): number {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

const TEXT: [string, string][] = [
  ['text', 'panel'],
  ['text', 'ground'],
  ['text', 'panel-raised'],
  ['text', 'accent-soft'],
  ['text-soft', 'panel'],
  ['text-soft', 'lamp-off'],
  ['text-soft', 'panel-raised'],
  ['accent', 'panel'],
  ['ok', 'panel'],
  ['critical', 'panel'],
  ['high', 'panel'],
  ['warning', 'panel'],
  ['info', 'panel'],
  ['on-critical', 'lamp-critical'],
  ['on-high', 'lamp-high'],
  ['on-warning', 'lamp-warning'],
  ['panel', 'accent'],
];
const GRAPHIC: [string, string][] = [
  ['series-1', 'panel'],
  ['series-2', 'panel'],
  ['line-strong', 'panel'],
  ['high', 'ground'],
  ['critical', 'ground'],
];

describe.each(['light', 'dark', 'contrast'])('theme %s', (theme) => {
  const colours = tokens(theme);
  const ratio = (a: string, b: string) => {
    const [first, second] = [colours.get(a), colours.get(b)];
    if (!first || !second) throw new Error(`${theme} lacks ${first ? b : a}`);
    return contrast(first, second);
  };
  test.each(TEXT)('%s on %s can be read', (a, b) => {
    expect(ratio(a, b)).toBeGreaterThanOrEqual(theme === 'contrast' ? 7 : 4.5);
  });
  test.each(GRAPHIC)('%s on %s can be seen', (a, b) => {
    expect(ratio(a, b)).toBeGreaterThanOrEqual(3);
  });
});
