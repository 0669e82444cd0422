/** What the tests of the playground itself run in it: a Deployment with its Service, and a pod that calls. */

export const web = (extra = ''): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: echo
          image: warren/echo
          args: ["--version=v1"]
          env: [{ name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }]
          ports: [{ name: http, containerPort: 8080 }]
          readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
          # Time for the service rules to forget the pod before it stops to listen.
          lifecycle: { preStop: { sleep: { seconds: 1 } } }
${extra}
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  selector: { app: web }
  ipFamilyPolicy: RequireDualStack
  ports: [{ name: http, port: 80, targetPort: http }, { name: tcp, port: 9090 }]
`;

export const clientPod = (name: string, node: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo }]
---
`;
