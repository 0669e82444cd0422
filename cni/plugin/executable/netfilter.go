// The two changes of nftables that a bypass needs, as netlink messages (include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h): a host
// need not have the program nft. Each is a batch of its own, as one that is not possible undoes its whole batch.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

const (
	familyInet = 1
	familyIPv4 = syscall.AF_INET
	familyIPv6 = syscall.AF_INET6

	netlinkNetfilter = 12
	subsystemNftable = 10
	batchBegin       = 0x10
	batchEnd         = 0x11
	messageDelTable  = subsystemNftable<<8 | 2
	messageDelRule   = subsystemNftable<<8 | 8

	// NFTA_TABLE_NAME; NFTA_RULE_TABLE and NFTA_RULE_CHAIN.
	attributeTable = 1
	attributeChain = 2
)

// Messages are in the byte order of the machine; the executable is built for little-endian ones.
var order = binary.LittleEndian

type netfilter struct {
	socket   int
	sequence uint32
}

func openNetfilter() (*netfilter, error) {
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkNetfilter)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	// The kernel answers within the call; a lost answer must not hang us.
	timeout := syscall.Timeval{Sec: 5}
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &timeout); err != nil {
		syscall.Close(socket)
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &netfilter{socket: socket}, nil
}

func (n *netfilter) close() { syscall.Close(n.socket) }

// deleteTable tells whether there was one.
func (n *netfilter) deleteTable(family byte, table string) (bool, error) {
	return n.change(messageDelTable, family, textAttribute(attributeTable, table))
}

// flushChain removes all rules of a chain, and tells whether there is such a chain.
func (n *netfilter) flushChain(family byte, table, chain string) (bool, error) {
	return n.change(messageDelRule, family, append(textAttribute(attributeTable, table), textAttribute(attributeChain, chain)...))
}

func (n *netfilter) change(kind uint16, family byte, attributes []byte) (bool, error) {
	begin := n.message(batchBegin, syscall.NLM_F_REQUEST, 0, subsystemNftable, nil)
	wanted := n.sequence + 1
	change := n.message(kind, syscall.NLM_F_REQUEST|syscall.NLM_F_ACK, family, 0, attributes)
	end := n.message(batchEnd, syscall.NLM_F_REQUEST, 0, subsystemNftable, nil)
	batch := append(append(begin, change...), end...)
	if err := syscall.Sendto(n.socket, batch, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	err := n.acknowledged(wanted)
	// No such table or chain, or a kernel without nftables or this family.
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EAFNOSUPPORT) {
		return false, nil
	}
	return err == nil, err
}

func (n *netfilter) acknowledged(wanted uint32) error {
	buffer := make([]byte, 8192)
	for {
		length, _, err := syscall.Recvfrom(n.socket, buffer, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("nftables: no answer of the kernel: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:length])
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		for _, message := range messages {
			if message.Header.Type != syscall.NLMSG_ERROR || len(message.Data) < 4 {
				continue
			}
			code := int32(order.Uint32(message.Data))
			// An error of the batch as a whole (no nftables in this kernel, no right) comes with the number of its begin.
			if code != 0 {
				return fmt.Errorf("nftables: %w", syscall.Errno(-code))
			}
			if message.Header.Seq == wanted {
				return nil
			}
		}
	}
}

func (n *netfilter) message(kind, flags uint16, family byte, resource uint16, attributes []byte) []byte {
	n.sequence++
	length := 20 + len(attributes)
	bytes := make([]byte, 20, length)
	order.PutUint32(bytes[0:], uint32(length))
	order.PutUint16(bytes[4:], kind)
	order.PutUint16(bytes[6:], flags)
	order.PutUint32(bytes[8:], n.sequence)
	// nfgenmsg: family, version, and the subsystem in network order.
	bytes[16] = family
	binary.BigEndian.PutUint16(bytes[18:], resource)
	return append(bytes, attributes...)
}

func textAttribute(kind uint16, text string) []byte {
	length := 4 + len(text) + 1
	bytes := make([]byte, (length+3)&^3)
	order.PutUint16(bytes[0:], uint16(length))
	order.PutUint16(bytes[2:], kind)
	copy(bytes[4:], text)
	return bytes
}
