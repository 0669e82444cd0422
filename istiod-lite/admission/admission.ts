/** Admission as one part of istiod: the port that the API server asks, and the roots by which it does. */
import type { ServerCertificate } from '../ca/serving-certificate.ts';
import { WebhookConfiguration, type WebhookConfigurationOptions } from './webhook-configuration.ts';
import { serveWebhook, type WebhookServerOptions } from './webhook-server.ts';

export interface AdmissionOptions extends WebhookServerOptions, WebhookConfigurationOptions {
  readonly certificate: Pick<ServerCertificate, 'provider'>;
}

export interface Admission {
  readonly port: number;
  /** This replica may have become the writer. */
  resume(): void;
  close(): Promise<void>;
}

/** @throws Error where the port is taken */
export async function startAdmission(options: AdmissionOptions): Promise<Admission> {
  const { provider } = options.certificate;
  const server = await serveWebhook(options);
  const configuration = new WebhookConfiguration(options);
  const listener = (roots: { caCertificate: Buffer } | null): void => {
    if (roots) configuration.setRoots(roots.caCertificate.toString());
  };
  provider.addCaCertificateListener(listener);
  return {
    port: server.port,
    resume: () => configuration.act(),
    async close() {
      provider.removeCaCertificateListener(listener);
      await server.close();
    },
  };
}
