/** Tells the story: what is done, what was seen, how to try it by hand. Colour and progress on a terminal, plain lines in a pipe. */
import { stripVTControlCharacters } from 'node:util';
import picocolors from 'picocolors';
import { inColour } from '../../meshctl/terminal.ts';

/** A step did not show what it should have. */
export class StepFailed extends Error {}

const SPINNER = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const SPIN_MS = 100;

export class Narrator {
  readonly #out: NodeJS.WriteStream;
  readonly #paint: ReturnType<typeof picocolors.createColors>;
  #step = 0;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#paint = picocolors.createColors(inColour(out));
  }

  chapter(title: string): void {
    this.#step++;
    this.#line(`\n${this.#paint.bold(this.#paint.cyan(`${this.#step}. ${title}`))}`);
  }

  /** How the reader does the same by hand. */
  command(text: string): void {
    this.#line(`   ${this.#paint.dim('$')} ${this.#paint.dim(text)}`);
  }

  saw(text: string): void {
    for (const line of text.trimEnd().split('\n')) this.#line(`     ${line}`);
  }

  /** What was checked and holds. */
  ok(text: string): void {
    this.#line(`   ${this.#paint.green('✓')} ${text}`);
  }

  /** Runs `work` and says how long it took; on a terminal something moves meanwhile. */
  async during<T>(what: string, work: Promise<T>): Promise<T> {
    const started = performance.now();
    let frame = 0;
    const spinner = this.#out.isTTY
      ? setInterval(() => this.#out.write(`\r   ${SPINNER[frame++ % SPINNER.length]} ${what} …`), SPIN_MS)
      : undefined;
    try {
      const result = await work;
      this.#clear(spinner);
      this.ok(`${what} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
      return result;
    } finally {
      this.#clear(spinner);
    }
  }

  end(ms: number): void {
    this.#line(`\n${this.#paint.green(this.#paint.bold('The story holds.'))} ${(ms / 1000).toFixed(0)} s, every step checked.`);
  }

  handOver(kubeconfig: string): void {
    this.#line('\nThe playground is yours until Ctrl-C:');
    this.command(`export KUBECONFIG=${kubeconfig}`);
    this.command('kubectl get pods -A -o wide');
    this.command('kubectl exec -n shop deploy/frontend -- client http://orders/');
    this.command('scripts/meshctl status');
  }

  failed(error: StepFailed, evidence: string): void {
    this.#line(`\n${this.#paint.red('✗')} ${error.message}`);
    if (evidence !== '') this.#line(`\nWhat the mesh says:\n${evidence}`);
  }

  #clear(spinner: NodeJS.Timeout | undefined): void {
    if (!spinner) return;
    clearInterval(spinner);
    this.#out.write('\r\x1b[K');
  }

  #line(text: string): void {
    this.#out.write(`${this.#out.isTTY ? text : stripVTControlCharacters(text)}\n`);
  }
}
