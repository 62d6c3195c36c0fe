/** Says in a sentence what is wrong with the data on the page; nothing while all is well. */
import { CirclePause, TriangleAlert, WifiOff } from 'lucide-react';
import { usePill } from '../header/ConnectionPill';
import { useBoard, useBoardContext, useNow, useOnline } from '../live/context';
import { dataAgeMs } from '../live/freshness';
import { useTexts } from '../messages';
import styles from './Banner.module.css';

export function Banner() {
  const { m, f } = useTexts();
  const { live } = useBoardContext();
  const pill = usePill();
  const online = useOnline();
  const now = useNow();
  const waiting = useBoard((board) => board.waiting);
  const paused = useBoard((board) => board.paused);
  const age = useBoard((board) => dataAgeMs(board, now));

  if (pill.kind === 'offline') {
    return (
      <div className={styles.bad} data-testid="banner">
        <WifiOff aria-hidden="true" size={20} />
        <p className={styles.text}>
          {age === null
            ? m.offlineEmptyBanner(f.clock(pill.sinceMs))
            : m.offlineBanner(f.clock(pill.sinceMs), f.duration(age))}{' '}
          {online ? pill.inSeconds !== null && m.nextAttempt(pill.inSeconds) : m.noNetwork}
        </p>
        <button type="button" className={styles.button} onClick={() => live.retryNow()}>
          {m.retry}
        </button>
      </div>
    );
  }
  if (pill.kind === 'silent') {
    return (
      <div className={styles.bad} data-testid="banner">
        <TriangleAlert aria-hidden="true" size={20} />
        <p className={styles.text}>{m.silentBanner(f.duration(pill.ageMs))}</p>
      </div>
    );
  }
  if (paused) {
    return (
      <div className={styles.quiet} data-testid="banner">
        <CirclePause aria-hidden="true" size={20} />
        <p className={styles.text}>{m.pausedBanner(m.changesWaiting(f.number(waiting, 'count'), waiting))}</p>
      </div>
    );
  }
  return null;
}
