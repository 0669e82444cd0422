/**
 * What is in /etc/cni/net.d of each node from its start: a network whose only plugin is the playground's own, for the mesh to chain to. It
 * comes first in lexical order, also where the machine under the playground has configurations of its own.
 */
export const NODE_CONFLIST = {
  name: '00-playground.conflist',
  text: `${JSON.stringify({ cniVersion: '1.0.0', name: 'playground', plugins: [{ type: 'playground' }] }, null, 2)}\n`,
};
