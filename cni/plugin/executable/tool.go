// The executable as a tool in the hands of whoever stands at the node: it needs neither Kubernetes nor the node agent.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

const usage = "istio-cni bypass [--undo] | istio-cni status"

func runTool(arguments []string, stdout, stderr io.Writer) int {
	folder := stateFolder()
	switch {
	case len(arguments) == 1 && arguments[0] == "bypass":
		return bypass(folder, stdout, stderr)
	case len(arguments) == 2 && arguments[0] == "bypass" && arguments[1] == "--undo":
		return undoBypass(folder, stdout, stderr)
	case len(arguments) == 1 && arguments[0] == "status":
		return status(folder, stdout)
	}
	fmt.Fprintln(stderr, "usage: "+usage+`

bypass         takes this node out of the mesh: pods start without asking, and the rules that lead traffic into the mesh are taken out of all pods
bypass --undo  takes it back in: the node agent enrols its pods again
status         whether this node is bypassed, what this node knows about its pods, whether the node agent answers`)
	return 2
}

func status(folder string, stdout io.Writer) int {
	if text, err := os.ReadFile(bypassFile(folder)); err == nil {
		fmt.Fprintf(stdout, "bypassed:   yes, %s", text)
	} else {
		fmt.Fprintln(stdout, "bypassed:   no")
	}
	if known := loadCache(folder); known.problem != "" {
		fmt.Fprintln(stdout, "cache:      "+known.problem)
	} else {
		counts := map[string]int{}
		for _, mode := range known.Namespaces {
			counts[mode]++
		}
		fmt.Fprintf(stdout, "cache:      namespaces: %d in the mesh, %d with pods that are, %d outside\n", counts["in"], counts["may"], counts["out"])
	}
	socket := filepath.Join(defaultRunDir, "pluginevent.sock")
	connection, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		fmt.Fprintf(stdout, "node agent: away (%s: %v)\n", socket, cause(err))
		return 0
	}
	connection.Close()
	fmt.Fprintln(stdout, "node agent: answers")
	return 0
}
