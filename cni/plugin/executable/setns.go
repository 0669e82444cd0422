package main

import (
	"fmt"
	"syscall"
)

// setns moves the calling thread into a network namespace; package syscall has no number for it.
func setns(descriptor uintptr) error {
	if _, _, err := syscall.RawSyscall(sysSetns, descriptor, syscall.CLONE_NEWNET, 0); err != 0 {
		return fmt.Errorf("setns: %w", err)
	}
	return nil
}
