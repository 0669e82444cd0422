/** `meshctl top`: services and edges, from the proxies' own counters, compared over a window; again and again on a terminal. */
import { type Clock, sleep, systemClock } from '../../common/base/clock.ts';
import type { Istiod, ReportingProxy } from '../istiod.ts';
import { difference, type Picture, takePicture } from '../live/counters.ts';
import { figures } from '../live/figures.ts';
import { openScreen } from '../live/screen.ts';
import { type TopScreen, topText } from '../live/top-text.ts';
import { withIstiod } from '../session.ts';
import { type Connection, checkFormat, plural, print, secondsOf, widthFor } from '../terminal.ts';

export interface TopOptions extends Connection {
  readonly namespace?: string;
  readonly window: string;
  readonly once: boolean;
  readonly output: string;
}

export async function topCommand(options: TopOptions): Promise<number> {
  const { output, namespace } = options;
  checkFormat(output);
  const windowMs = 1000 * secondsOf(options.window, '--window', { least: 0.5, most: 600 });
  const live = process.stdout.isTTY === true && !options.once && (output === 'text' || output === 'wide');
  return withIstiod(options, async (_api, istiod) => {
    let proxies = await istiod.proxies();
    let before = await takePicture(istiod, proxies, { latencies: true });
    const screen = live ? openScreen(process.stdout, process) : undefined;
    screen?.show(`meshctl top: watching ${plural(proxies.length, 'proxy', 'proxies')} (Ctrl-C ends it)`);
    try {
      for (;;) {
        const { picture, ...seen } = await oneWindow(istiod, proxies, before, windowMs, namespace, systemClock);
        if (!screen) {
          await print(seen.screen, output, (width) => topText(seen.screen, width));
          return seen.screen.proxies === 0 ? 1 : 0;
        }
        screen.show(`meshctl top, ${new Date().toTimeString().slice(0, 8)}: ${topText(seen.screen, widthOf(output))}`);
        before = picture;
        // Proxies come and go.
        proxies = await istiod.proxies();
      }
    } finally {
      screen?.close();
    }
  });
}

async function oneWindow(
  istiod: Istiod,
  proxies: readonly ReportingProxy[],
  before: Picture,
  windowMs: number,
  namespace: string | undefined,
  clock: Clock,
): Promise<{ screen: TopScreen; picture: Picture }> {
  const alive = setInterval(() => undefined, windowMs);
  await sleep(clock, windowMs);
  clearInterval(alive);
  const picture = await takePicture(istiod, proxies, { latencies: true });
  const deltas = difference(before, picture);
  const waypoints = new Set(proxies.filter(({ kind }) => kind === 'waypoint').map(workloadOf));
  const seconds = deltas.length === 0 ? windowMs / 1000 : deltas.reduce((sum, each) => sum + each.seconds, 0) / deltas.length;
  return {
    picture,
    screen: { windowSeconds: seconds, proxies: deltas.length, missing: picture.missing, ...figures(deltas, waypoints, namespace) },
  };
}

/** Of a Deployment's pod: its name without the two parts that the Deployment and the ReplicaSet add. */
export const workloadOf = ({ name, namespace }: Pick<ReportingProxy, 'name' | 'namespace'>): string =>
  `${namespace}/${name.replace(/-[a-z0-9]+-[a-z0-9]{5}$/, '')}`;

/** What is painted has the terminal's width and no more, unless all of it was asked for: then it is cut at the edge. */
const widthOf = (output: string): number => (output === 'wide' ? widthFor(output) : (process.stdout.columns ?? widthFor(output)));
