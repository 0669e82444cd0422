module warren.dev/istio-cni

go 1.19
