/** A shape for each severity, so that colour never says it alone. */
import { CircleAlert, Info, OctagonAlert, TriangleAlert } from 'lucide-react';
import type { Severity } from '../wire/schema';

const ICONS = { critical: OctagonAlert, high: TriangleAlert, warning: CircleAlert, info: Info } as const;

export function SeverityIcon({ severity, size = 20 }: { severity: Severity; size?: number }) {
  const Icon = ICONS[severity];
  return <Icon aria-hidden="true" size={size} />;
}
