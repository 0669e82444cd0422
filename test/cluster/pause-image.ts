/** The image of pod sandboxes: one static program, as a user that is nobody. */
import { imageArchive } from './image-archive.ts';

export const PAUSE_IMAGE = 'warren/pause:1';

export const pauseImage = (program: Buffer): Buffer =>
  imageArchive({ name: PAUSE_IMAGE, entrypoint: ['/pause'], user: '65535:65535' }, program);
