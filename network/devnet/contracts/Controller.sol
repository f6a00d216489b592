// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Where every other contract is found by the hash of its name, and where all of them are paused.
contract Controller {
    struct Entry {
        address contractAddress;
        bytes20 gitCommitHash;
    }

    event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);
    event SetContractInfo(bytes32 id, address contractAddress, bytes20 gitCommitHash);
    event Pause();
    event Unpause();

    address public owner;
    bool public paused;
    mapping(bytes32 => Entry) private entries;

    modifier onlyOwner() {
        require(msg.sender == owner, "Ownable: caller is not the owner");
        _;
    }

    constructor() {
        owner = msg.sender;
        emit OwnershipTransferred(address(0), msg.sender);
    }

    function setContractInfo(bytes32 id, address contractAddress, bytes20 gitCommitHash)
        external
        onlyOwner
    {
        entries[id] = Entry(contractAddress, gitCommitHash);
        emit SetContractInfo(id, contractAddress, gitCommitHash);
    }

    function getContractInfo(bytes32 id) external view returns (address, bytes20) {
        return (entries[id].contractAddress, entries[id].gitCommitHash);
    }

    function getContract(bytes32 id) external view returns (address) {
        return entries[id].contractAddress;
    }

    function pause() external onlyOwner {
        require(!paused, "Pausable: paused");
        paused = true;
        emit Pause();
    }

    function unpause() external onlyOwner {
        require(paused, "Pausable: not paused");
        paused = false;
        emit Unpause();
    }
}
