// Errors as the CNI specification defines them: a code, one line that the kubelet shows in the pod's events, and what to do about it.
package main

const (
	codeVersion     = 1
	codeEnvironment = 4
	codeInput       = 5
	codeDecode      = 6
	codeConfig      = 7
	codeTryAgain    = 11
)

type cniError struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Message    string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

func failure(code int, message, details string) *cniError {
	return &cniError{CNIVersion: newestVersion, Code: code, Message: "istio-cni: " + message, Details: details}
}

// answering gives the error the version that the runtime spoke.
func (problem *cniError) answering(config *netConfig) *cniError {
	if problem != nil {
		problem.CNIVersion = config.CNIVersion
	}
	return problem
}
