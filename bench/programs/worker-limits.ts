/** How ztunnel's supervisor limits its data workers' heaps; what it does there has to be done here for memory to be comparable. */
export const WORKER_YOUNG_GENERATION_MB = 8;
