/** How the page stands with the server: colour, icon and words. */
import {
  CircleDot,
  CirclePause,
  History,
  LoaderCircle,
  RefreshCw,
  TriangleAlert,
  WifiOff,
} from 'lucide-react';
import type { Format } from '../format/format';
import { useBoard, useNow, useOnline } from '../live/context';
import { type Pill, pillOf } from '../live/freshness';
import { type Messages, useTexts } from '../messages';
import styles from './ConnectionPill.module.css';

const LOOK = {
  connecting: { tone: 'quiet', Icon: LoaderCircle },
  live: { tone: 'ok', Icon: CircleDot },
  paused: { tone: 'quiet', Icon: CirclePause },
  refused: { tone: 'bad', Icon: WifiOff },
  catching_up: { tone: 'warn', Icon: History },
  silent: { tone: 'bad', Icon: TriangleAlert },
  reconnecting: { tone: 'warn', Icon: RefreshCw },
  offline: { tone: 'bad', Icon: WifiOff },
} as const;

export function pillText(pill: Pill, m: Messages, f: Format): string {
  switch (pill.kind) {
    case 'catching_up':
      return m.pill.catchingUp(pill.left ? f.number(pill.left, 'count') : null);
    case 'silent':
      return m.pill.silent(f.duration(pill.ageMs));
    case 'reconnecting':
      return m.pill.reconnecting(pill.inSeconds);
    case 'offline':
      return m.pill.offline(f.clock(pill.sinceMs));
    default:
      return m.pill[pill.kind];
  }
}

/** The pill's state, renewed every second for its countdown. */
export function usePill(): Pill {
  const now = useNow();
  const online = useOnline();
  const connection = useBoard((board) => board.connection);
  const status = useBoard((board) => board.status);
  const engineSeenMs = useBoard((board) => board.engineSeenMs);
  const paused = useBoard((board) => board.paused);
  return pillOf({ connection, status, engineSeenMs, paused }, now, online);
}

export function ConnectionPill() {
  const { m, f } = useTexts();
  const pill = usePill();
  const { tone, Icon } = LOOK[pill.kind];
  return (
    <span className={`${styles.pill} ${styles[tone]}`} data-testid="connection" data-state={pill.kind}>
      <Icon aria-hidden="true" size={16} />
      {pillText(pill, m, f)}
    </span>
  );
}
