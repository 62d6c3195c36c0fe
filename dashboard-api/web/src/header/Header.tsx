/** Product, signal lamps, connection, the data's clock, and the page's own settings. */
import { Languages, Pause, Play, SunMoon } from 'lucide-react';
import { NO_VALUE } from '../format/format';
import { useBoard, useBoardContext, useNow } from '../live/context';
import { businessTimeMs, dataAgeMs } from '../live/freshness';
import { LANGUAGES, type Language, useTexts } from '../messages';
import { chooseTheme, THEMES, type ThemeChoice, useThemeChoice } from '../theme/theme';
import { ConnectionPill } from './ConnectionPill';
import styles from './Header.module.css';
import { SignalLamps } from './SignalLamps';

export interface HeaderProps {
  readonly language: Language;
  readonly onLanguage: (language: Language) => void;
}

export function Header({ language, onLanguage }: HeaderProps) {
  const { m } = useTexts();
  return (
    <header className={styles.header}>
      <a className={styles.skip} href="#alerts">
        {m.skipToAlerts}
      </a>
      <div className={styles.brand}>
        <Lantern />
        <h1 className={styles.name}>{m.product}</h1>
      </div>
      <SignalLamps />
      <DataClock />
      <div className={styles.controls}>
        <ConnectionPill />
        <PauseButton />
        <ThemeSelect />
        <label className={styles.select} title={m.language}>
          <Languages aria-hidden="true" size={18} />
          <span className={styles.hidden}>{m.language}</span>
          <select value={language} onChange={(event) => onLanguage(event.target.value as Language)}>
            {LANGUAGES.map((each) => (
              <option key={each} value={each} lang={each}>
                {m.languages[each]}
              </option>
            ))}
          </select>
        </label>
      </div>
    </header>
  );
}

/** The paper lantern that an andon once was; its light is the state of the house. */
function Lantern() {
  const worst = useBoard((board) => board.alerts.firing[0]?.severity ?? null);
  const live = useBoard((board) => board.connection.kind === 'live');
  const light = !live
    ? styles.dark
    : worst === 'critical'
      ? styles.red
      : worst === 'high' || worst === 'warning'
        ? styles.amber
        : styles.green;
  return (
    <svg
      className={`${styles.lantern} ${light}`}
      viewBox="0 0 32 32"
      width="32"
      height="32"
      aria-hidden="true"
    >
      <rect x="9" y="2" width="14" height="3" rx="1.2" className={styles.frame} />
      <rect x="6" y="6" width="20" height="20" rx="5" className={styles.paper} />
      <path d="M6 13h20M6 19h20" className={styles.rib} />
      <rect x="9" y="27" width="14" height="3" rx="1.2" className={styles.frame} />
    </svg>
  );
}

/** Business time of the data and how long ago it was heard, which are two different clocks. */
function DataClock() {
  const { m, f } = useTexts();
  const asOfMs = useBoard(businessTimeMs);
  const now = useNow();
  const age = useBoard((board) => dataAgeMs(board, now));
  const ago = age === null ? m.noDataYet : age < 2_000 ? m.updatedNow : m.updatedAgo(f.duration(age));
  return (
    <div className={styles.clock} title={m.dataTimeHint}>
      <span className={styles.asOf} data-testid="as-of">
        {m.asOf} <strong>{asOfMs === null ? NO_VALUE : f.dateTime(asOfMs)}</strong>
      </span>
      <span className={styles.age}>{ago}</span>
    </div>
  );
}

function PauseButton() {
  const { m } = useTexts();
  const { store } = useBoardContext();
  const paused = useBoard((board) => board.paused);
  return (
    <button
      type="button"
      className={styles.button}
      data-paused={paused}
      onClick={() => (paused ? store.resume() : store.pause())}
    >
      {paused ? <Play aria-hidden="true" size={18} /> : <Pause aria-hidden="true" size={18} />}
      <span>{paused ? m.resume : m.pause}</span>
    </button>
  );
}

function ThemeSelect() {
  const { m } = useTexts();
  const choice = useThemeChoice();
  return (
    <label className={styles.select} title={m.theme}>
      <SunMoon aria-hidden="true" size={18} />
      <span className={styles.hidden}>{m.theme}</span>
      <select value={choice} onChange={(event) => chooseTheme(event.target.value as ThemeChoice)}>
        {THEMES.map((each) => (
          <option key={each} value={each}>
            {m.themes[each]}
          </option>
        ))}
      </select>
    </label>
  );
}
