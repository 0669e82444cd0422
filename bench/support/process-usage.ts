import { readFileSync } from 'node:fs';

export interface Usage {
  /** Of all its threads since it began; its children's are their own. */
  readonly cpuSeconds: number;
  readonly rssMegabytes: number;
}

/** What a process has used so far. @throws Error where there is none */
export function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  // utime and stime, in hundredths of a second (proc(5)).
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100, rssMegabytes: Number(rss) / 1024 };
}
