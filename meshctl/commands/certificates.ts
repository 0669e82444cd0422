/** `cert init` and `cert issue`, as commander knows them. What they do is loaded when one is called: it brings node-forge with it. */
import type { Command } from 'commander';
import type { InitOptions, IssueOptions } from './cert.ts';

export function addCert(program: Command): void {
  const cert = program.command('cert').description('certificates for proxies on hosts without a control plane');
  const ca = ['--ca <folder>', 'folder of the CA: ca-cert.pem, ca-key.pem'] as const;
  const trustDomain = ['--trust-domain <name>', 'trust domain of the identities', 'cluster.local'] as const;
  cert
    .command('init')
    .description('makes a CA of its own, once; its key stays in the folder')
    .requiredOption(...ca)
    .option(...trustDomain)
    .option('--days <number>', 'life of the CA', '3650')
    .action(async (options: InitOptions) => {
      const { initCa } = await import('./cert.ts');
      print(initCa(options, Date.now()));
    });
  cert
    .command('issue')
    .description('a key and a certificate for one identity, as files for CERT_DIR; again in the same folder to renew')
    .requiredOption(...ca)
    .requiredOption('-n, --namespace <name>', 'namespace of the identity')
    .requiredOption('--service-account <name>', 'service account of the identity')
    .option(...trustDomain)
    .option('--ttl <duration>', 'life of the certificate, such as 24h or 90d', '30d')
    .requiredOption('-o, --out <folder>', 'where cert-chain.pem, key.pem and root-cert.pem are written')
    .action(async (options: IssueOptions) => {
      const { issue } = await import('./cert.ts');
      print(issue(options, Date.now()));
    });
}

const print = (text: string): void => void process.stdout.write(`${text}\n`);
