/** HTTP/2 limits of the connections that we open (Istio's ztunnel, src/proxy/h2). */
import { defaultClientLimits, type HboneLimits } from '../../common/hbone/types.ts';
import type { ZtunnelSettings } from '../settings.ts';

export const clientLimits = ({ streamWindow, connectionWindow, frameSize }: ZtunnelSettings): HboneLimits => ({
  ...defaultClientLimits,
  streamWindow,
  connectionWindow,
  maxFrameSize: frameSize,
});
