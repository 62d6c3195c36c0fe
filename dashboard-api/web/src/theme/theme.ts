/** The appearance: the person's choice, else what the system asks for. */
import { useSyncExternalStore } from 'react';

export const THEMES = ['system', 'light', 'dark', 'contrast'] as const;
export type ThemeChoice = (typeof THEMES)[number];
export type Theme = Exclude<ThemeChoice, 'system'>;

const STORAGE_KEY = 'andon.theme';
const DARK = '(prefers-color-scheme: dark)';
const CONTRAST = '(prefers-contrast: more)';

const listeners = new Set<() => void>();
let choice: ThemeChoice = 'system';
let theme: Theme = 'light';

function resolve(): Theme {
  if (choice !== 'system') return choice;
  if (matchMedia(CONTRAST).matches) return 'contrast';
  return matchMedia(DARK).matches ? 'dark' : 'light';
}

function apply(): void {
  theme = resolve();
  document.documentElement.dataset.theme = theme;
  for (const listener of listeners) listener();
}

/** Reads the choice and follows the system from now on; call it before the first render. */
export function startTheme(): void {
  try {
    const stored = localStorage.getItem(STORAGE_KEY);
    choice = THEMES.find((each) => each === stored) ?? 'system';
  } catch {
    choice = 'system';
  }
  matchMedia(DARK).addEventListener('change', apply);
  matchMedia(CONTRAST).addEventListener('change', apply);
  apply();
}

export function chooseTheme(next: ThemeChoice): void {
  choice = next;
  try {
    localStorage.setItem(STORAGE_KEY, next);
  } catch {
    // Storage is switched off: the choice lasts until the reload.
  }
  apply();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The theme in force, for what cannot use CSS variables by itself (the chart's canvas). */
export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, () => theme);
}

export function useThemeChoice(): ThemeChoice {
  return useSyncExternalStore(subscribe, () => choice);
}

/** The present value of a colour token. */
export function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
