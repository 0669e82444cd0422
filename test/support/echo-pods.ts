/** Manifests of what most tests of a mesh call: an enrolled namespace, and echo servers with an identity, a node and a service each. */

export interface EchoPod {
  /** Of the pod, its account, its label `app` and its service. */
  readonly name: string;
  readonly namespace: string;
  readonly node: string;
}

export const ambientNamespace = (name: string): string => `
---
apiVersion: v1
kind: Namespace
metadata: { name: ${name}, labels: { istio.io/dataplane-mode: ambient } }
`;

/** Answers HTTP at port 80 of its service; the image is one that both the playground and test clusters have. */
export const echoPod = ({ name, namespace, node }: EchoPod): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: ${namespace} }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name} } }
spec:
  serviceAccountName: ${name}
  nodeSelector: { kubernetes.io/hostname: ${node} }
  terminationGracePeriodSeconds: 1
  containers:
    - { name: echo, image: "warren/echo:0.1.0", imagePullPolicy: Never, args: ["--port=8080"], readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 } }
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
`;
