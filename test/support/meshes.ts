/** Every implementation of MeshView that a test of decisions should hold for. */
import type { MeshView } from '../../common/decision/mesh-view.ts';
import { type MeshContents, PlainMesh } from './plain-mesh.ts';

export const meshes: Readonly<Record<string, (contents: MeshContents) => MeshView>> = {
  plain: (contents) => new PlainMesh(contents),
};
