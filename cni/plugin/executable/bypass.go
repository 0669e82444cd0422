// bypass takes the mesh out of the path of every pod of this node, with nothing but this executable and the kernel. First the file that lets
// new pods through and tells the node agent to keep its hands off (it comes back from a restart with the file still there), then the rules.
//
// Where ztunnel still listens in a pod, only what captures new connections goes: connections that ztunnel relays need the rest until they
// end. Where nobody listens, everything goes.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

func bypassFile(folder string) string { return filepath.Join(folder, "bypass") }

func bypass(folder string, stdout, stderr io.Writer) int {
	if err := writeBypassFile(folder); err != nil {
		fmt.Fprintln(stderr, "istio-cni: new pods would still wait for the node agent:", err)
		return 1
	}
	fmt.Fprintln(stdout, "new pods start without the mesh, and the node agent takes no pod into it ("+bypassFile(folder)+")")
	namespaces, err := podNamespaces()
	if err != nil {
		fmt.Fprintln(stderr, "istio-cni: pods' network namespaces cannot be listed:", err)
		return 1
	}
	cleaned, failed := cleanAll(namespaces, stderr)
	fmt.Fprintf(stdout, "the mesh's rules are out of %d network namespaces; %d were looked at\n", cleaned, len(namespaces))
	if failed > 0 {
		fmt.Fprintf(stderr, "istio-cni: %d network namespaces still have rules of the mesh\n", failed)
		return 1
	}
	return 0
}

func undoBypass(folder string, stdout, stderr io.Writer) int {
	err := os.Remove(bypassFile(folder))
	switch {
	case errors.Is(err, os.ErrNotExist):
		fmt.Fprintln(stdout, "this node is not bypassed")
	case err != nil:
		fmt.Fprintln(stderr, "istio-cni:", err)
		return 1
	default:
		fmt.Fprintln(stdout, "the node agent takes this node's pods back into the mesh; new pods wait for it again")
	}
	return 0
}

func writeBypassFile(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	text := "since " + time.Now().UTC().Format(time.RFC3339) + ", by hand on the node\n"
	temporary := bypassFile(folder) + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, bypassFile(folder))
}

// A node has a few hundred pods, and each needs a thread of its own while it is worked on.
const concurrent = 8

func cleanAll(namespaces []string, stderr io.Writer) (cleaned, failed int) {
	queue := make(chan string)
	var group sync.WaitGroup
	var lock sync.Mutex
	for i := 0; i < concurrent; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for path := range queue {
				had, err := inNamespace(path, cleanNamespace)
				lock.Lock()
				switch {
				case errors.Is(err, os.ErrNotExist):
					// It ended since it was listed.
				case err != nil:
					failed++
					fmt.Fprintf(stderr, "istio-cni: %s: %v\n", path, err)
				case had:
					cleaned++
				}
				lock.Unlock()
			}
		}()
	}
	for _, path := range namespaces {
		queue <- path
	}
	close(queue)
	group.Wait()
	return cleaned, failed
}

// podNamespaces returns one path for each network namespace of this machine that is not its own: those of processes, and those that
// something keeps mounted.
func podNamespaces() ([]string, error) {
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("%w; /proc is not that of this shell's processes: enter the node with its PID namespace", cause(err))
	}
	seen := map[uint64]bool{inode(own): true}
	var found []string
	consider := func(path string) {
		if info, err := os.Stat(path); err == nil && !seen[inode(info)] {
			seen[inode(info)] = true
			found = append(found, path)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, path := range processes {
		consider(path)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		// 36 35 0:4 net:[4026532281] /run/netns/x rw - nsfs nsfs rw
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
			consider(fields[4])
		}
	}
	return found, nil
}

func inode(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// inNamespace runs on a thread of its own, which ends with it: a thread that has changed its namespace is of no use to anybody else.
func inNamespace(path string, run func() (bool, error)) (bool, error) {
	type outcome struct {
		had bool
		err error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread()
		file, err := os.Open(path)
		if err != nil {
			done <- outcome{err: err}
			return
		}
		defer file.Close()
		if err := setns(file.Fd()); err != nil {
			done <- outcome{err: err}
			return
		}
		had, err := run()
		done <- outcome{had, err}
	}()
	result := <-done
	return result.had, result.err
}

var (
	nftTables = []string{"istio-ambient-nat", "istio-ambient-raw", "istio-ambient-mangle"}
	// Istio's names in the tables of iptables; mangle last, as relayed connections need it to the end.
	iptablesTables = []string{"nat", "raw", "mangle"}
	iptablesChains = []string{"ISTIO_OUTPUT", "ISTIO_PRERT"}
)

// cleanNamespace tells whether there was anything of ours.
func cleanNamespace() (bool, error) {
	nft, err := openNetfilter()
	if err != nil {
		return false, err
	}
	defer nft.close()
	relaying := ztunnelListens()
	had := false
	var problems []error
	note := func(changed bool, err error) {
		had = had || changed
		if err != nil {
			problems = append(problems, err)
		}
	}
	for _, table := range nftTables {
		switch {
		case !relaying:
			note(nft.deleteTable(familyInet, table))
		case table == "istio-ambient-nat":
			// The base chains stay: with the last of them translation would end for what is being relayed too.
			note(nft.flushChain(familyInet, table, "istio-output"))
			note(nft.flushChain(familyInet, table, "istio-prerouting"))
		case table == "istio-ambient-raw":
			note(nft.deleteTable(familyInet, table))
		}
	}
	for _, family := range []byte{familyIPv4, familyIPv6} {
		for _, table := range iptablesTables {
			if relaying && table == "mangle" {
				continue
			}
			for _, chain := range iptablesChains {
				note(nft.flushChain(family, table, chain))
			}
		}
	}
	note(flushLegacy(relaying))
	if len(problems) > 0 {
		return had, problems[0]
	}
	return had, nil
}

// ztunnelListens looks for its ports among those that this thread's namespace listens on.
func ztunnelListens() bool {
	const listening = "0A"
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			fields := strings.Fields(line)
			// 15001 and 15008.
			if len(fields) > 3 && fields[3] == listening && (strings.HasSuffix(fields[1], ":3A99") || strings.HasSuffix(fields[1], ":3AA0")) {
				return true
			}
		}
	}
	return false
}

// flushLegacy is for rules of the old iptables, which no netlink message reaches: the host's own program has to do it.
func flushLegacy(relaying bool) (bool, error) {
	had := false
	for _, side := range []struct{ names, program string }{{"ip_tables_names", "iptables"}, {"ip6_tables_names", "ip6tables"}} {
		text, err := os.ReadFile("/proc/thread-self/net/" + side.names)
		if err != nil {
			continue
		}
		for _, table := range strings.Fields(string(text)) {
			if relaying && table == "mangle" {
				continue
			}
			for _, chain := range iptablesChains {
				changed, err := flushLegacyChain(side.program, table, chain)
				if err != nil {
					return had, err
				}
				had = had || changed
			}
		}
	}
	return had, nil
}

func flushLegacyChain(program, table, chain string) (bool, error) {
	for _, name := range []string{program + "-legacy", program} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if exec.Command(path, "-w", "5", "-t", table, "-S", chain).Run() != nil {
			return false, nil
		}
		if output, err := exec.Command(path, "-w", "5", "-t", table, "-F", chain).CombinedOutput(); err != nil {
			return false, fmt.Errorf("%s -t %s -F %s: %s", name, table, chain, strings.TrimSpace(string(output)))
		}
		return true, nil
	}
	return false, fmt.Errorf("there are rules of %s, and the program is not on this host", program)
}
