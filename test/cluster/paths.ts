/** Where things lie in every node. */
export const CONTAINERD_SOCKET = '/run/containerd/containerd.sock';
