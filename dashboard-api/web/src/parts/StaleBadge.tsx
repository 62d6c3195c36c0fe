/** Says that data is ageing, stale or paused: in colour, with an icon and in words. Nothing while it is fresh. */
import { CirclePause, Clock4, TriangleAlert } from 'lucide-react';
import { useBoardAt } from '../live/context';
import { freshness } from '../live/freshness';
import { useTexts } from '../messages';
import styles from './StaleBadge.module.css';

export function StaleBadge() {
  const { m } = useTexts();
  const state = useBoardAt((board, now) => {
    const age = freshness(board, now);
    if (age === 'stale' || age === 'ageing') return age;
    return board.paused ? 'paused' : 'none';
  });
  if (state === 'none') return null;
  const Icon = state === 'stale' ? TriangleAlert : state === 'paused' ? CirclePause : Clock4;
  return (
    <span className={styles[state]} data-testid="stale-badge">
      <Icon aria-hidden="true" size={12} />
      {m.badge[state]}
    </span>
  );
}
