// One question to the node agent over its unix socket. HTTP/1.0, so that the answer's body ends with the connection; net/http would double
// the executable and the time that it takes to start.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxAnswerBytes = 4096
	retryPause     = 100 * time.Millisecond
	connectTimeout = time.Second
)

// Statuses by which the agent says that it does not know: Kubernetes' API server is away, or the agent itself has just started.
const statusUndecided = 503

type answer struct {
	// 0 where there was none.
	status int
	said   string
	err    error
}

func (a answer) allowed() bool { return a.status == 200 }

func (a answer) refused() bool {
	return a.status != 0 && a.status != 200 && a.status != statusUndecided
}

func (a answer) text() string {
	if a.err != nil {
		return a.err.Error()
	}
	if a.said == "" {
		return fmt.Sprintf("status %d", a.status)
	}
	return a.said
}

// askAgent tries again while nobody listens: for a moment, and only where the pod may not start without an answer.
func askAgent(socket string, event []byte, patience time.Duration, waitForIt bool) answer {
	deadline := time.Now().Add(patience)
	giveUp := time.Now()
	if waitForIt {
		giveUp = giveUp.Add(agentReturns)
	}
	if giveUp.After(deadline) {
		giveUp = deadline
	}
	for {
		connection, err := net.DialTimeout("unix", socket, connectTimeout)
		if err == nil {
			return exchange(connection, event, deadline, patience)
		}
		// A queue that is full is an agent that is there: many pods start at once.
		busy := errors.Is(err, syscall.EAGAIN) && time.Now().Before(deadline)
		if !busy && (!isAway(err) || time.Now().After(giveUp)) {
			return answer{err: fmt.Errorf("nobody answers at %s: %w", socket, cause(err))}
		}
		time.Sleep(retryPause)
	}
}

func exchange(connection net.Conn, event []byte, deadline time.Time, patience time.Duration) answer {
	defer connection.Close()
	_ = connection.SetDeadline(deadline)
	head := "POST /cmdadd HTTP/1.0\r\nHost: istio-cni\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(event)) + "\r\n\r\n"
	if _, err := connection.Write(append([]byte(head), event...)); err != nil {
		return lost(err, patience)
	}
	reader := bufio.NewReader(io.LimitReader(connection, 64<<10))
	status, err := readHead(reader)
	if err != nil {
		return lost(err, patience)
	}
	body, _ := io.ReadAll(io.LimitReader(reader, maxAnswerBytes))
	return answer{status: status, said: strings.TrimSpace(string(body))}
}

func readHead(reader *bufio.Reader) (int, error) {
	line, err := reader.ReadString('\n')
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") {
		return 0, errors.New("it answers with something that is no HTTP")
	}
	status, err := strconv.Atoi(fields[1])
	if err != nil || status < 100 || status > 599 {
		return 0, errors.New("it answers with something that is no HTTP")
	}
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if strings.TrimSpace(line) == "" {
			return status, nil
		}
	}
}

func lost(err error, patience time.Duration) answer {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return answer{err: fmt.Errorf("the node agent did not answer within %s", patience)}
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return answer{err: errors.New("the node agent ended without an answer")}
	}
	return answer{err: fmt.Errorf("the node agent: %w", cause(err))}
}

func isAway(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// cause leaves out what net adds to an error: the path is in ours already.
func cause(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
