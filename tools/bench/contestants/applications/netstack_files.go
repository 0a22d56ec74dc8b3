// SPDX-License-Identifier: MIT

// gVisor's netstack serves a folder over a TAP device: netstack_files DIRECTORY DEVICE ADDRESS PORT.
//
// Its own adapter makes a net.Listener of the stack, and Go's HTTP server does the rest, as in the programs that embed
// it. Congestion control is CUBIC, SACK is on. Checksums of what comes are not verified, which the kernel has made a
// moment ago on this machine; those of what goes are made in software, and each segment is a frame of its own: the
// stack's segmentation offloads want a packet socket. Small files are read once and kept.
//
// Prints one line when it listens; runs until it is killed. It must not be put on a public network.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/tun"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	nic       = 1
	mtu       = 1500
	prefix    = 24
	keptFiles = 4096
	keptBytes = 1 << 20
	headBytes = 8192
)

func die(what string, why any) {
	fmt.Fprintf(os.Stderr, "netstack_files: %s: %v\n", what, why)
	os.Exit(1)
}

// A stack with one address on a TAP device.
func makeStack(device string, address tcpip.Address) *stack.Stack {
	fd, err := tun.OpenTAP(device)
	if err != nil {
		die(device, err)
	}
	link, err := fdbased.New(&fdbased.Options{
		FDs:               []int{fd},
		MTU:               mtu,
		EthernetHeader:    true,
		Address:           tcpip.LinkAddress("\x02\x67\x56\x69\x73\x01"),
		RXChecksumOffload: true,
	})
	if err != nil {
		die(device, err)
	}
	made := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	cubic, sack := tcpip.CongestionControlOption("cubic"), tcpip.TCPSACKEnabled(true)
	for _, option := range []tcpip.SettableTransportProtocolOption{&cubic, &sack} {
		if err := made.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			die("option", err)
		}
	}
	if err := made.CreateNIC(nic, link); err != nil {
		die("interface", err)
	}
	own := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: address, PrefixLen: prefix},
	}
	if err := made.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
		die("address", err)
	}
	made.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return made
}

// Answers GET with a file's bytes.
type files struct {
	root string
	mu   sync.RWMutex
	kept map[string][]byte
}

func (f *files) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodGet {
		response.Header().Set("Connection", "close")
		response.WriteHeader(http.StatusBadRequest)
		return
	}
	name := request.URL.Path
	f.mu.RLock()
	body, found := f.kept[name]
	f.mu.RUnlock()
	if !found {
		opened, err := os.Open(filepath.Join(f.root, path.Clean("/"+name)))
		if err != nil {
			response.WriteHeader(http.StatusNotFound)
			return
		}
		defer opened.Close()
		about, err := opened.Stat()
		if err != nil || !about.Mode().IsRegular() {
			response.WriteHeader(http.StatusNotFound)
			return
		}
		if about.Size() > keptBytes {
			http.ServeContent(response, request, name, about.ModTime(), opened)
			return
		}
		body = make([]byte, about.Size())
		if _, err := io.ReadFull(opened, body); err != nil {
			response.WriteHeader(http.StatusNotFound)
			return
		}
		f.mu.Lock()
		if len(f.kept) < keptFiles {
			f.kept[name] = body
		}
		f.mu.Unlock()
	}
	head := response.Header()
	head["Content-Type"] = []string{"application/octet-stream"}
	head["Content-Length"] = []string{strconv.Itoa(len(body))}
	response.Write(body)
}

func main() {
	if len(os.Args) != 5 || net.ParseIP(os.Args[3]).To4() == nil {
		fmt.Fprintln(os.Stderr, "usage: netstack_files DIRECTORY DEVICE ADDRESS PORT")
		os.Exit(2)
	}
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})
	address := tcpip.Address(net.ParseIP(os.Args[3]).To4())
	port, _ := strconv.ParseUint(os.Args[4], 10, 16)
	where := tcpip.FullAddress{NIC: nic, Addr: address, Port: uint16(port)}
	listener, err := gonet.ListenTCP(makeStack(os.Args[2], address), where, ipv4.ProtocolNumber)
	if err != nil {
		die("listen", err)
	}
	fmt.Printf("ready http://%s:%d/\n", os.Args[3], port)
	handler := &files{root: os.Args[1], kept: map[string][]byte{}}
	server := http.Server{Handler: handler, MaxHeaderBytes: headBytes}
	die("serve", server.Serve(listener))
}
