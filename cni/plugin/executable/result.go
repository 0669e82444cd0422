// The result of the plugins before us: passed on as it is, and looked into for the pod's addresses.
package main

import (
	"encoding/json"
	"net"
)

// podIP has the form that Istio's agent reads (cni/pkg/nodeagent): the address as Go writes a net.IPNet.
type podIP struct {
	Address net.IPNet
}

// readPrevResult returns what is printed in the end. Without a result before us (a runtime that does not chain, such as Multus calling us as
// a delegate) it is an empty one.
func readPrevResult(config *netConfig) (json.RawMessage, []podIP, *cniError) {
	if len(config.PrevResult) == 0 || string(config.PrevResult) == "null" {
		empty, _ := json.Marshal(map[string]string{"cniVersion": config.CNIVersion})
		return empty, nil, nil
	}
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
		// Until version 0.2.0.
		IP4, IP6 *struct {
			IP string `json:"ip"`
		}
	}
	if err := json.Unmarshal(config.PrevResult, &result); err != nil {
		return nil, nil, failure(codeDecode, "prevResult is not what it should be: "+err.Error(),
			"it comes from the plugin before istio-cni in the node's conflist")
	}
	var texts []string
	for _, entry := range result.IPs {
		texts = append(texts, entry.Address)
	}
	if result.IP4 != nil {
		texts = append(texts, result.IP4.IP)
	}
	if result.IP6 != nil {
		texts = append(texts, result.IP6.IP)
	}
	var ips []podIP
	for _, text := range texts {
		ip, network, err := net.ParseCIDR(text)
		if err != nil {
			return nil, nil, failure(codeDecode, "prevResult: "+err.Error(), "it comes from the plugin before istio-cni in the node's conflist")
		}
		ips = append(ips, podIP{net.IPNet{IP: ip, Mask: network.Mask}})
	}
	return config.PrevResult, ips, nil
}
