/**
 * What is in an image, as an SPDX 2.3 document: Debian packages, Node, npm packages, each with version, digest and package URL; and Warren's
 * own program. Made from the very lists that the image was made from.
 * @see https://spdx.github.io/spdx-spec/v2.3/
 */
import { createHash } from 'node:crypto';
import type { Architecture } from './components.ts';
import type { DebianPackage } from './debian.ts';
import { EPOCH_S } from './layer.ts';
import type { LockedPackage } from './reach.ts';

export interface Contents {
  /** `warren/ztunnel` */
  readonly name: string;
  readonly version: string;
  /** The image's manifest, `sha256:…`. */
  readonly digest: string;
  readonly architecture: Architecture;
  /** Debian's name of the release: `bookworm`. */
  readonly suite: string;
  readonly debian: readonly DebianPackage[];
  /** The npm package that brings Node's executable. */
  readonly node: LockedPackage;
  readonly packages: readonly LockedPackage[];
  /** The program layer, hexadecimal SHA-256. */
  readonly program: string;
  /** What else was compiled for it. */
  readonly executables: readonly { readonly path: string; readonly content: Buffer; readonly goVersion: string | undefined }[];
}

export function sbom({ name, version, digest, architecture, suite, debian, node, packages, program, executables }: Contents): string {
  const image = spdxPackage('Image', name, version, {
    purl: `pkg:oci/${name.split('/').pop() ?? name}@${digest.replace(':', '%3A')}?tag=${version}&arch=${architecture}`,
    checksum: { algorithm: 'SHA256', checksumValue: digest.replace('sha256:', '') },
    purpose: 'CONTAINER',
  });
  const parts = [
    spdxPackage('Program', 'warren', version, { checksum: { algorithm: 'SHA256', checksumValue: program }, purpose: 'APPLICATION' }),
    ...executables.flatMap(({ path, content, goVersion }) => {
      const checksum = { algorithm: 'SHA256', checksumValue: createHash('sha256').update(content).digest('hex') };
      const own = spdxPackage(`Executable-${path}`, path, version, { checksum, purpose: 'APPLICATION' });
      if (goVersion === undefined) return [own];
      const library = { purl: `pkg:golang/stdlib@${goVersion}`, purpose: 'LIBRARY' } as const;
      return [own, spdxPackage(`Go-${path}`, 'stdlib', goVersion, library)];
    }),
    spdxPackage('Node', 'node', node.version, {
      purl: npmUrl(node),
      checksum: integrity(node),
      license: node.license,
      purpose: 'APPLICATION',
    }),
    ...debian.map((item) =>
      spdxPackage(`Debian-${item.name}`, item.name, item.version, {
        purl: `pkg:deb/debian/${encodeURIComponent(item.name)}@${encodeURIComponent(item.version)}?arch=${architecture}&distro=${suite}&upstream=${encodeURIComponent(item.source)}`,
        checksum: { algorithm: 'SHA256', checksumValue: item.sha256 },
        purpose: 'LIBRARY',
        supplier: 'Organization: Debian',
      }),
    ),
    ...packages.map((item) =>
      spdxPackage(`npm-${item.path.replaceAll('node_modules/', '')}`, item.name, item.version, {
        purl: npmUrl(item),
        checksum: integrity(item),
        license: item.license,
        purpose: 'LIBRARY',
      }),
    ),
  ];
  const document = {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: `${name}:${version}`,
    documentNamespace: `urn:warren:image:${digest}`,
    creationInfo: { created: new Date(EPOCH_S * 1000).toISOString().replace('.000', ''), creators: ['Tool: warren-scripts-images'] },
    documentDescribes: [image.SPDXID],
    packages: [image, ...parts],
    relationships: [
      { spdxElementId: 'SPDXRef-DOCUMENT', relationshipType: 'DESCRIBES', relatedSpdxElement: image.SPDXID },
      ...parts.map(({ SPDXID }) => ({ spdxElementId: image.SPDXID, relationshipType: 'CONTAINS', relatedSpdxElement: SPDXID })),
    ],
  };
  return `${JSON.stringify(document, null, 1)}\n`;
}

interface Facts {
  readonly purl?: string;
  readonly checksum?: { readonly algorithm: string; readonly checksumValue: string };
  readonly license?: string;
  readonly purpose: 'CONTAINER' | 'APPLICATION' | 'LIBRARY';
  readonly supplier?: string;
}

function spdxPackage(id: string, name: string, version: string, { purl, checksum, license, purpose, supplier }: Facts) {
  return {
    SPDXID: `SPDXRef-${id.replaceAll(/[^A-Za-z0-9.-]/g, '-')}`,
    name,
    versionInfo: version,
    supplier: supplier ?? 'NOASSERTION',
    downloadLocation: 'NOASSERTION',
    filesAnalyzed: false,
    primaryPackagePurpose: purpose,
    licenseConcluded: 'NOASSERTION',
    licenseDeclared: license ?? 'NOASSERTION',
    copyrightText: 'NOASSERTION',
    ...(checksum && { checksums: [checksum] }),
    ...(purl && { externalRefs: [{ referenceCategory: 'PACKAGE-MANAGER', referenceType: 'purl', referenceLocator: purl }] }),
  };
}

const GO_BUILD_INFO = Buffer.from('\xff Go buildinf:', 'latin1');

/** @returns the release of Go that built an executable, `1.26.0`; undefined for others. @see Go, debug/buildinfo: the version is a string at 32, its length before it */
export function goVersion(executable: Buffer): string | undefined {
  const at = executable.indexOf(GO_BUILD_INFO);
  if (at === -1) return undefined;
  const length = executable[at + 32] ?? 0;
  return /^go(\d[\d.]*)/.exec(executable.toString('latin1', at + 33, at + 33 + length))?.[1];
}

const npmUrl = ({ name, version }: LockedPackage): string => `pkg:npm/${name.replace(/^@/, '%40')}@${version}`;

/** npm writes base64, SPDX hexadecimal. */
function integrity({ integrity: value }: LockedPackage): { algorithm: string; checksumValue: string } {
  const [algorithm = '', base64 = ''] = value.split('-');
  return { algorithm: algorithm.toUpperCase(), checksumValue: Buffer.from(base64, 'base64').toString('hex') };
}
