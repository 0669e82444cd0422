// istio-cni is the chained CNI plugin: the container runtime runs it for each new pod, after the plugins that gave the pod its network.
// It asks the node agent over a unix socket, and the pod starts when the agent says that it may. Everything that decides about a pod is in
// add.go; what happens while the agent is away is in cache.go.
//
// It is written in Go because it must need nothing on the host and start in milliseconds; ARCHITECTURE.md has the measurement. Only the
// standard library is used, and the same executable is the tool that takes this node out of the mesh without anybody's help (bypass.go).
package main

import (
	"encoding/json"
	"io"
	"os"
)

func main() {
	dropCoreDumps()
	command := os.Getenv("CNI_COMMAND")
	if command == "" && len(os.Args) > 1 {
		os.Exit(runTool(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(runPlugin(command, os.Stdin, os.Stdout, os.Stderr))
}

// runPlugin does one CNI command: the result, or the error, is JSON on stdout, as the specification wants it.
func runPlugin(command string, stdin io.Reader, stdout, stderr io.Writer) int {
	host := host{environ: os.Getenv, stateFolder: stateFolder(), stderr: stderr}
	output, problem := perform(command, stdin, host)
	if problem != nil {
		printJSON(stdout, problem)
		return 1
	}
	if output != nil {
		printJSON(stdout, output)
	}
	return 0
}

func printJSON(stdout io.Writer, value any) {
	encoder := json.NewEncoder(stdout)
	// The kubelet shows the text as it is: < and > are for people.
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value)
}

// host is what a command needs of the machine that it runs on.
type host struct {
	environ     func(name string) string
	stateFolder string
	stderr      io.Writer
}

func perform(command string, stdin io.Reader, host host) (any, *cniError) {
	if command == "VERSION" {
		return versionReport(stdin), nil
	}
	config, problem := readConfig(stdin)
	if problem != nil {
		return nil, problem
	}
	switch command {
	case "ADD":
		result, problem := add(config, host)
		return result, problem.answering(config)
	case "CHECK":
		// What was arranged for the pod is the agent's, and it looks after it all the time.
		_, problem := readRequest(host.environ, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
		return nil, problem.answering(config)
	case "DEL":
		// The rules end with the pod's network namespace, and the agent hears of the pod's end from Kubernetes.
		_, problem := readRequest(host.environ, "CNI_CONTAINERID", "CNI_IFNAME")
		return nil, problem.answering(config)
	case "STATUS", "GC":
		// STATUS: a node whose agent is away can still start every pod that is not in the mesh, so it is ready. GC: we keep nothing for a pod.
		return nil, nil
	case "":
		return nil, failure(codeEnvironment, "CNI_COMMAND is not set", "this program is run by a container runtime; by hand: "+usage).answering(config)
	default:
		return nil, failure(codeEnvironment, "CNI_COMMAND="+command+" is none of ADD, CHECK, DEL, GC, STATUS, VERSION", "").answering(config)
	}
}
