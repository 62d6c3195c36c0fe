/** Every text of the page, in English and German, behind one hook. */
import { createContext, type ReactNode, useContext, useMemo } from 'react';
import { type Format, formatFor } from '../format/format';
import { de } from './de';
import { en } from './en';

export const LANGUAGES = ['en', 'de'] as const;
export type Language = (typeof LANGUAGES)[number];
export type Messages = typeof en;

const MESSAGES: Record<Language, Messages> = { en, de };
const STORAGE_KEY = 'andon.language';

interface Texts {
  readonly m: Messages;
  readonly f: Format;
}

const Context = createContext<Texts>({ m: en, f: formatFor('en') });

/** The person's choice, else the browser's first language that we have. */
export function initialLanguage(): Language {
  const stored = readChoice();
  const wanted = stored ? [stored] : navigator.languages;
  for (const tag of wanted) {
    const match = LANGUAGES.find((language) => tag.toLowerCase().startsWith(language));
    if (match) return match;
  }
  return 'en';
}

function readChoice(): string | null {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null;
  }
}

export function keepLanguage(language: Language): void {
  try {
    localStorage.setItem(STORAGE_KEY, language);
  } catch {
    // Storage is switched off: the choice lasts until the reload.
  }
}

export function MessagesProvider({ language, children }: { language: Language; children: ReactNode }) {
  const texts = useMemo(() => ({ m: MESSAGES[language], f: formatFor(language) }), [language]);
  return <Context value={texts}>{children}</Context>;
}

export function useTexts(): Texts {
  return useContext(Context);
}
